"""Tiny pipelines in the place of real ones: they compute at once, or wait for a file.

A prompt `wait FILE` holds the pipeline before its last step, a text `wait FILE` the embedder, until
that file exists: so a test decides what a worker is busy with. `FILE.awaited` says that it waits.
A prompt `slow …` takes its time for each step. Where it is not there, a prompt `lose FILE` makes it
and fails as a GPU does, and `hang FILE` makes it and hangs in C with Python's lock; once it is
there, both paint.
"""

import ctypes
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.errors import PresetFileError, TextTooLongError
from models.flux.text_encoders import TextFeatures
from models.fnet.text_embedder import Pooling
from models.fnet.tokenizer import TokenizedText, TruncationSide
from tests.cards import card_of
from worker.contract.jobs import Task
from worker.contract.model_cards import ImageLimits, ModelCard
from worker.device_memory import Memory
from worker.eviction import MemoryNeed
from worker.loading import Loaded, Report
from worker.metrics import WorkerMetrics
from worker.model_specs import ModelSpec
from worker.residency import ModelEvents, Residency
from worker.swap_policy import SwapPolicy

if TYPE_CHECKING:  # each process of a tiny worker does without
    from models.flux.latents import Start
    from models.flux.text_to_image import Negative

LABELS = ("red", "green", "blue")
MAX_WORDS = 8
MEGABYTE = 10**6
SLOW_STEP_S = 0.05
P = TypeVar("P")
WAIT_LIMIT_S = 60.0  # a forgotten file fails the test instead of hanging it


def awaited(path: Path) -> Path:
    """What says that somebody waits for this file."""
    return path.with_name(f"{path.name}.awaited")


def wait_for_file(text: str) -> None:
    word, _, path = text.partition(" ")
    if word != "wait":
        return
    give_up_at = time.monotonic() + WAIT_LIMIT_S
    awaited(Path(path)).touch()
    while not Path(path).exists():
        assert time.monotonic() < give_up_at, f"{path} never came"
        time.sleep(0.005)


def hang_once(text: str) -> None:
    """Come to no end, with Python's lock held, where the file is not there yet."""
    word, _, path = text.partition(" ")
    if word == "hang" and not Path(path).exists():
        Path(path).touch()
        ctypes.PyDLL(None).sleep(600)


def lose_device_once(text: str) -> None:
    """Fail as a GPU does, where the file is not there yet; it is from then on."""
    word, _, path = text.partition(" ")
    if word == "lose" and not Path(path).exists():
        Path(path).touch()
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@dataclass(eq=False, slots=True)
class TinyRow:
    """What the tiny pipeline knows of an image on its way: its patches are its seed."""

    prompt: str
    num_steps: int
    patches: Tensor
    num_places: int
    num_text_tokens: int
    step: int = 0


class TinyImagePipeline:
    """Paints one colour a seed; that of 13 cannot be decoded.

    The prompt `unreadable` raises in the encoder, `broken` in the first step.
    """

    has_guidance = False

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []  # of the forwards
        self.encoded: list[tuple[tuple[str, ...], dict[str, float]]] = []  # and with which LoRAs
        self.begun: list[dict[str, object]] = []  # the options of each job
        self.most_rows: int | None = None  # that there is memory for
        self._prompts: list[str] = []

    def encode(
        self,
        prompts: Sequence[str],
        max_sequence_length: int,
        loras: Mapping[str, float] | None = None,
    ) -> TextFeatures:
        self.encoded.append((tuple(prompts), dict(loras or {})))
        if "unreadable" in prompts:
            raise RuntimeError("the encoder broke")
        first = len(self._prompts)
        self._prompts += prompts
        numbers = torch.arange(first, len(self._prompts)).float()[:, None]
        truncated = tuple(len(prompt) > 99 for prompt in prompts)
        return TextFeatures(
            torch.zeros(len(prompts), max_sequence_length, 8),
            numbers,
            (4,) * len(prompts),
            truncated,
        )

    def begin(
        self,
        text: TextFeatures,
        seeds: Sequence[int],
        width: int,
        height: int,
        num_steps: int,
        guidance_scale: float | None,
        *,
        negative: "Negative | None" = None,
        start: "Start | None" = None,
        flow_shift: float | None = None,
        loras: Mapping[str, float] | None = None,
    ) -> list[TinyRow]:
        assert guidance_scale is None
        self.begun.append(
            {"negative": negative, "start": start, "flow_shift": flow_shift, "loras": loras}
        )
        num_patches = (width // 16) * (height // 16)
        return [
            TinyRow(
                prompt=self._prompts[int(text.pooled[0, 0])],
                num_steps=num_steps,
                patches=torch.full((num_patches, 64), float(seed)),
                num_places=1 if negative is None else 2,
                num_text_tokens=text.text.shape[1],
            )
            for seed in seeds
        ]

    def step(self, rows: Sequence[TinyRow]) -> None:
        self.batch_sizes.append(len(rows))
        if self.most_rows is not None and len(rows) > self.most_rows:
            raise torch.OutOfMemoryError(f"{len(rows)} rows")
        assert len({row.num_text_tokens for row in rows}) == 1, "texts of several lengths"
        if any(row.prompt.startswith("slow ") for row in rows):
            time.sleep(SLOW_STEP_S)
        for row in rows:
            if row.prompt == "broken":
                raise RuntimeError("the pipeline broke")
            lose_device_once(row.prompt)
            hang_once(row.prompt)
            if row.step == row.num_steps - 1:
                wait_for_file(row.prompt)
        for row in rows:
            row.step += 1

    def decode(self, patches: Tensor, width: int, height: int) -> np.ndarray:
        levels = patches[:, 0, 0].numpy().astype(np.uint8)
        if 13 in levels:
            raise RuntimeError("the decoder broke")
        return np.broadcast_to(levels[:, None, None, None], (len(levels), height, width, 3))

    def preview(self, row: TinyRow) -> np.ndarray:
        return np.full((4, 4, 3), 10 * row.step, np.uint8)


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
    """A token is a word's length; the embedding is the direction of (tokens, their sum).

    Of "cls" the second is the first token.
    """

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self._texts: dict[tuple[int, ...], str] = {}

    def tokenize(
        self, text: str | Sequence[int], truncation: TruncationSide | None = None
    ) -> TokenizedText:
        lengths = [len(word) for word in text.split()] if isinstance(text, str) else list(text)
        is_long = len(lengths) > MAX_WORDS
        if is_long and truncation is None:
            raise TextTooLongError(f"{len(lengths)} tokens; at most {MAX_WORDS} are allowed")
        kept = lengths[-MAX_WORDS:] if truncation == "left" else lengths[:MAX_WORDS]
        padding = [0] * (-len(kept) % 4)  # to a multiple of 4
        token_ids = (*kept, *padding)
        self._texts[token_ids] = text if isinstance(text, str) else ""
        return TokenizedText(token_ids, len(kept), is_long)

    def encode(self, batch: Sequence[TokenizedText]) -> Tensor:
        self.batch_sizes.append(len(batch))
        for text in batch:
            wait_for_file(self._texts[text.token_ids])
        return torch.tensor([text.token_ids for text in batch], dtype=torch.float32)[..., None]

    def pool(
        self,
        sequence_output: Tensor,
        batch: Sequence[TokenizedText],
        pooling: Pooling,
        normalizes: bool,
    ) -> Tensor:
        letters = sequence_output[:, :, 0].sum(dim=1)
        if pooling == "cls":
            letters = sequence_output[:, 0, 0]
        words = torch.tensor([text.num_tokens for text in batch], dtype=torch.float32)
        vectors = torch.stack([words, letters], dim=1)
        return torch.nn.functional.normalize(vectors, dim=-1) if normalizes else vectors


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

    def __init__(self, pipeline: P, image_limits: ImageLimits | None) -> None:
        self._pipeline = pipeline
        self._image_limits = image_limits

    def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:  # noqa: ARG002
        return MemoryNeed(MEGABYTE)

    def load(self, spec: ModelSpec, report: Report) -> Loaded[P]:  # noqa: ARG002
        assert spec.task is not None
        given = loaded(self._pipeline, spec.name, spec.task)
        if self._image_limits is None:
            return given
        card = given.card.model_copy(update={"image_limits": self._image_limits})
        return replace(given, card=card)

    def to_host(self, loaded: Loaded[P]) -> None:
        pass

    def to_device(self, loaded: Loaded[P]) -> None:
        pass

    def give_back(self) -> None:
        pass


def resident(
    pipeline: P,
    name: str,
    task: Task,
    events: ModelEvents | None = None,
    image_limits: ImageLimits | None = None,
) -> Residency[P]:
    """A residency that holds one pipeline; without limits, those of `tests.cards`."""
    specs = [ModelSpec(name=name, task=task)]
    loader = Given(pipeline, image_limits)
    residency = Residency(
        specs, loader, WorkerMetrics(Task.IMAGES), events or Silent(), Memory(), SwapPolicy()
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
