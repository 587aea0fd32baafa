"""Tiny pipelines in the place of real ones: they compute at once, or wait for a file.

A prompt `wait FILE` holds the pipeline before its last step, a text `wait FILE` the embedder, until
that file exists: so a test decides what a worker is busy with. A prompt `lose FILE` makes the file,
and fails as a GPU does; once it is there, it paints.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.errors import PresetFileError, TextTooLongError
from models.flux.sampling import DenoiseStep
from models.flux.text_encoders import TextFeatures
from models.fnet.tokenizer import TokenizedText
from tests.cards import card_of
from worker.contract.jobs import Task
from worker.contract.model_cards import ModelCard
from worker.device_memory import Memory
from worker.eviction import MemoryNeed
from worker.loading import Loaded, Report
from worker.metrics import WorkerMetrics
from worker.model_specs import ModelSpec
from worker.residency import ModelEvents, Residency
from worker.swap_policy import SwapPolicy

if TYPE_CHECKING:  # diffusers takes a second, and each process of a tiny worker does without
    from models.flux.latents import Start
    from models.flux.text_to_image import Negative

LABELS = ("red", "green", "blue")
MAX_WORDS = 8
MEGABYTE = 10**6
P = TypeVar("P")
WAIT_LIMIT_S = 60.0  # a forgotten file fails the test instead of hanging it


def wait_for_file(text: str) -> None:
    word, _, path = text.partition(" ")
    give_up_at = time.monotonic() + WAIT_LIMIT_S
    while word == "wait" and not Path(path).exists():
        assert time.monotonic() < give_up_at, f"{path} never came"
        time.sleep(0.005)


def lose_device_once(text: str) -> None:
    """Fail as a GPU does, where the file is not there yet; it is from then on."""
    word, _, path = text.partition(" ")
    if word == "lose" and not Path(path).exists():
        Path(path).touch()
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


class TinyImagePipeline:
    """Paints one colour a seed; the prompt `broken` raises in the first step."""

    has_guidance = False

    def __init__(self) -> None:
        self.num_denoise_calls = 0
        self.lora_scales: dict[str, float] = {}
        self.last_negative: Negative | None = None
        self.last_start: Start | None = None
        self._prompt = ""

    def set_lora_scales(self, scales: Mapping[str, float]) -> None:
        self.lora_scales.update(scales)

    def encode(self, prompts: Sequence[str], max_sequence_length: int) -> TextFeatures:
        assert max_sequence_length == 32
        self._prompt = prompts[0]
        return TextFeatures(torch.zeros(1, 4, 8), torch.zeros(1, 8), (4,), (len(prompts[0]) > 99,))

    def denoise(
        self,
        text: TextFeatures,  # noqa: ARG002
        seeds: Sequence[int],
        width: int,
        height: int,
        num_steps: int,
        guidance_scale: float | None = None,
        *,
        negative: "Negative | None" = None,
        start: "Start | None" = None,
    ) -> Iterator[DenoiseStep]:
        assert guidance_scale is None
        self.last_negative, self.last_start = negative, start
        self.num_denoise_calls += 1
        num_patches = (width // 16) * (height // 16)
        patches = torch.tensor(seeds).float()[:, None, None].expand(-1, num_patches, 64)
        for step in range(1, num_steps + 1):
            if self._prompt == "broken":
                raise RuntimeError("the pipeline broke")
            lose_device_once(self._prompt)
            if step == num_steps:
                wait_for_file(self._prompt)
            yield DenoiseStep(step, num_steps, 1 - step / num_steps, patches)

    def decode(self, patches: Tensor, width: int, height: int) -> np.ndarray:
        levels = patches[:, 0, 0].numpy().astype(np.uint8)
        return np.broadcast_to(levels[:, None, None, None], (len(levels), height, width, 3))


class TinyClassifier:
    """Logits are the mean red, green and blue; an image of 13 pixels' width breaks its forward."""

    labels = LABELS

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def preprocess(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32) / 255)

    def logits(self, images: Tensor) -> Tensor:
        self.batch_sizes.append(len(images))
        if images.shape[2] == 13:
            raise RuntimeError("the forward broke")
        return images.mean(dim=(1, 2))


class TinyEmbedder:
    """The embedding is the direction of (number of words, number of letters)."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self._texts: dict[tuple[int, ...], str] = {}

    def tokenize(self, text: str) -> TokenizedText:
        words = text.split()
        if len(words) > MAX_WORDS:
            raise TextTooLongError(f"{len(words)} tokens; at most {MAX_WORDS} are allowed")
        lengths = [len(word) for word in words]
        padding = [0] * (-len(words) % 4)  # to a multiple of 4
        token_ids = (*lengths, *padding)
        self._texts[token_ids] = text
        return TokenizedText(token_ids, len(words))

    def embed(self, batch: Sequence[TokenizedText]) -> Tensor:
        self.batch_sizes.append(len(batch))
        for text in batch:
            wait_for_file(self._texts[text.token_ids])
        vectors = torch.tensor(
            [[text.num_tokens, sum(text.token_ids)] for text in batch], dtype=torch.float32
        )
        return torch.nn.functional.normalize(vectors, dim=-1)


Tiny: TypeAlias = TinyImagePipeline | TinyClassifier | TinyEmbedder
_OF_TASK: Mapping[Task, Callable[[], Tiny]] = {
    Task.IMAGES: TinyImagePipeline,
    Task.CLASSIFY: TinyClassifier,
    Task.EMBEDDINGS: TinyEmbedder,
}


class TinyLoader:
    """A model whose name begins with `broken` does not load, one that begins with `slow` never.

    Each takes a megabyte; what leaves the device is counted, and comes back as it was.
    """

    def __init__(self) -> None:
        self.num_loads: Counter[str] = Counter()
        self.moves: list[tuple[str, str]] = []  # name, and where to

    def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:  # noqa: ARG002
        report(f"measuring {spec.name}")
        return MemoryNeed(MEGABYTE)

    def load(self, spec: ModelSpec, report: Report) -> Loaded[Tiny]:
        assert spec.task is not None
        report("loading")
        if spec.name.startswith("slow"):
            with ThreadPoolExecutor(1) as pool:  # as hubs' clients download
                pool.submit(time.sleep, 3600).result()
        if spec.name.startswith("broken"):
            raise PresetFileError(f"{spec.name} is broken")
        self.num_loads[spec.name] += 1
        return loaded(_OF_TASK[spec.task](), spec.name, spec.task)

    def to_host(self, loaded: Loaded[Tiny]) -> None:
        self.moves.append((loaded.card.name, "host"))

    def to_device(self, loaded: Loaded[Tiny]) -> None:
        self.moves.append((loaded.card.name, "device"))

    def give_back(self) -> None:
        pass


def loaded(pipeline: P, name: str, task: Task) -> Loaded[P]:
    changes = {"labels": LABELS} if task is Task.CLASSIFY else {}
    return Loaded(pipeline, card_of(name, task, **changes))


class Silent:
    """Nobody is told how the models are."""

    def note_progress(self, model: str, progress: str) -> None:
        pass

    def note_resident(self, model: str, is_resident: bool) -> None:
        pass

    def announce_ready(self, card: ModelCard, load_s: float) -> None:
        pass

    def announce_failed(self, model: str, reason: str) -> None:
        pass


class Given(Generic[P]):
    """Loads a pipeline that is there already."""

    def __init__(self, pipeline: P) -> None:
        self._pipeline = pipeline

    def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:  # noqa: ARG002
        return MemoryNeed(MEGABYTE)

    def load(self, spec: ModelSpec, report: Report) -> Loaded[P]:  # noqa: ARG002
        assert spec.task is not None
        return loaded(self._pipeline, spec.name, spec.task)

    def to_host(self, loaded: Loaded[P]) -> None:
        pass

    def to_device(self, loaded: Loaded[P]) -> None:
        pass

    def give_back(self) -> None:
        pass


def resident(pipeline: P, name: str, task: Task, events: ModelEvents | None = None) -> Residency[P]:
    """A residency that holds one pipeline."""
    specs = [ModelSpec(name=name, task=task)]
    residency = Residency(
        specs, Given(pipeline), WorkerMetrics(), events or Silent(), Memory(), SwapPolicy()
    )
    bring_all(residency)
    return residency


def bring_all(residency: Residency[P]) -> None:
    """Let every model be loaded, or fail, as while there are no jobs."""
    num_quiet = 0
    while num_quiet < 2:
        residency.advance()
        num_quiet = 0 if residency.is_busy else num_quiet + 1
        residency.wait(WAIT_LIMIT_S)
