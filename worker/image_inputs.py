"""From a job's fields to what the pipeline takes: LoRAs set, texts encoded, a start image decoded.

Knows nothing about the denoise loop and records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from models.errors import ImageDecodeError
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import ImageJob, StartImage
from worker.contract.model_cards import ImageLimits, ModelCard
from worker.failures import BadInputError, NotServedError, StorageError
from worker.image_decoding import decode_image
from worker.text_cache import TextCache

if TYPE_CHECKING:  # transformers takes seconds to import, and other queues' workers do without
    from models.flux.latents import Start
    from models.flux.text_encoders import TextFeatures
    from models.flux.text_to_image import Negative


class Encoder(Protocol):
    """The part of `TextToImage` that comes before the denoise loop."""

    def set_lora_scales(self, scales: Mapping[str, float]) -> None: ...

    def encode(self, prompts: Sequence[str], max_sequence_length: int) -> TextFeatures: ...


@dataclass(frozen=True, slots=True)
class Texts:
    """What to paint, and what not to."""

    prompt: TextFeatures
    negative: Negative | None

    @property
    def num_tokens(self) -> int:
        return sum(text.num_tokens[0] for text in self._all)

    @property
    def is_truncated(self) -> bool:
        return any(text.truncated[0] for text in self._all)

    @property
    def _all(self) -> tuple[TextFeatures, ...]:
        return (self.prompt,) if self.negative is None else (self.prompt, self.negative.text)


def encode_texts(job: ImageJob, pipeline: Encoder, card: ModelCard, cache: TextCache) -> Texts:
    """Encode with the job's LoRAs, which are for CLIP as well, and stay set for its loop."""
    limits = card.image_limits
    assert limits is not None, f"this is a bug: {card.name} has no limits"
    pipeline.set_lora_scales(_lora_scales(job, limits))

    def features_of(prompt: str) -> TextFeatures:
        length = limits.max_sequence_length
        key = (card.digest, job.loras, prompt, length)
        return cache.get(key, lambda: pipeline.encode([prompt], length))

    prompt = features_of(job.prompt)
    if job.negative is None:
        return Texts(prompt, None)
    from models.flux.text_to_image import Negative  # the pipeline has it loaded

    unwanted = features_of(job.negative.prompt)
    return Texts(prompt, Negative(unwanted, job.negative.true_cfg_scale))


def read_start(start: StartImage, files: ImageFiles) -> Start:
    """Decode what a job starts from; raises BadInputError where it is no image."""
    from models.flux.latents import Start  # the pipeline has it loaded

    try:
        image = decode_image(files.read_start(start.file_name))
    except OSError as error:
        raise StorageError(f"start image {start.file_name}") from error
    except ImageDecodeError as error:
        raise BadInputError("image") from error
    return Start([image], start.strength)


def _lora_scales(job: ImageJob, limits: ImageLimits) -> dict[str, float]:
    """Of all LoRAs of the model: those that the job did not choose, another one may have."""
    chosen = {lora.name: lora.scale for lora in job.loras}
    if gone := chosen.keys() - set(limits.loras):  # the API read the card of another worker
        raise NotServedError(f"{job.model} has no LoRA {', '.join(sorted(gone))}")
    return {name: chosen.get(name, 0.0) for name in limits.loras}
