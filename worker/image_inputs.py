"""From a job's fields to what the pipeline takes: LoRAs' scales, texts encoded, a start image.

Knows nothing about the denoise loop and records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from models.errors import ImageDecodeError
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import ImageJob, StartImage
from worker.contract.model_cards import ImageLimits, ModelCard
from worker.device_sharing import DeviceSharing
from worker.failures import BadInputError, NotServedError, StorageError
from worker.image_decoding import decode_image
from worker.metrics import WorkerMetrics
from worker.text_cache import TextCache

if TYPE_CHECKING:  # other queues' workers do without
    from models.flux.latents import Start
    from models.flux.text_encoders import TextFeatures
    from models.flux.text_to_image import Negative

# encoded at once: with T5-XXL's 512 tokens each, a tenth of what its weights take
_MAX_PROMPTS = 8


class Encoder(Protocol):
    """The part of `TextToImage` that reads prompts."""

    def encode(
        self,
        prompts: Sequence[str],
        max_sequence_length: int,
        loras: Mapping[str, float] | None = None,
    ) -> TextFeatures: ...


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


def lora_scales(job: ImageJob, card: ModelCard) -> dict[str, float]:
    """The LoRAs that the job chose; raises NotServedError for one that this worker has not."""
    limits = card.image_limits
    assert limits is not None, f"this is a bug: {card.name} has no limits"
    scales = {lora.name: lora.scale for lora in job.loras}
    if gone := scales.keys() - set(limits.loras):  # the API read the card of another worker
        raise NotServedError(f"{job.model} has no LoRA {', '.join(sorted(gone))}")
    return scales


def text_length_of(job: ImageJob, limits: ImageLimits) -> int:
    """To how many T5 tokens a job's texts are padded or cut."""
    asked = job.max_sequence_length
    return limits.max_sequence_length if asked is None else asked


def encode_texts(
    jobs: Sequence[ImageJob],
    pipeline: Encoder,
    card: ModelCard,
    cache: TextCache,
    sharing: DeviceSharing,
) -> list[Texts]:
    """Encode the prompts of jobs with the same LoRAs and text length: each text once.

    LoRAs are for CLIP as well. Raises NotServedError for one that this worker has not, and for more
    tokens than its model reads.
    """
    limits, scales = card.image_limits, lora_scales(jobs[0], card)
    assert limits is not None, f"this is a bug: {card.name} has no limits"
    length = text_length_of(jobs[0], limits)
    if length > limits.max_sequence_length:  # the API read the card of another worker
        raise NotServedError(f"{card.name} reads {limits.max_sequence_length} tokens, not {length}")
    known = {prompt: (card.digest, jobs[0].loras, prompt, length) for prompt in _prompts(jobs)}
    features = {prompt: cache.find(key, card.name) for prompt, key in known.items()}
    missing = [prompt for prompt, found in features.items() if found is None]
    for first in range(0, len(missing), _MAX_PROMPTS):
        prompts = missing[first : first + _MAX_PROMPTS]
        encoded = sharing.run(partial(pipeline.encode, prompts, length, loras=scales))
        for prompt, row in zip(prompts, _rows(encoded), strict=True):
            features[prompt] = row
            cache.keep(known[prompt], row)
    found = {prompt: each for prompt, each in features.items() if each is not None}
    return [_texts(job, found) for job in jobs]


def read_start(start: StartImage, files: ImageFiles, metrics: WorkerMetrics) -> Start:
    """Decode what a job starts from; raises BadInputError where it is no image."""
    from models.flux.latents import Start  # the pipeline has it loaded

    try:
        with metrics.store_operation("read"):
            content = files.read_start(start.file_name)
        image = decode_image(content)
    except OSError as error:
        raise StorageError(f"start image {start.file_name}") from error
    except ImageDecodeError as error:
        raise BadInputError("image") from error
    return Start([image], start.strength)


def _prompts(jobs: Sequence[ImageJob]) -> Iterator[str]:
    for job in jobs:
        yield job.prompt
        if job.negative is not None:
            yield job.negative.prompt


def _rows(encoded: TextFeatures) -> Iterator[TextFeatures]:
    """The features of each prompt alone."""
    from models.flux.text_encoders import TextFeatures  # the pipeline has it loaded

    for index, (num_tokens, truncated) in enumerate(
        zip(encoded.num_tokens, encoded.truncated, strict=True)
    ):
        text, pooled = (each[index : index + 1] for each in (encoded.text, encoded.pooled))
        yield TextFeatures(text, pooled, (num_tokens,), (truncated,))


def _texts(job: ImageJob, features: Mapping[str, TextFeatures]) -> Texts:
    if job.negative is None:
        return Texts(features[job.prompt], None)
    from models.flux.text_to_image import Negative  # the pipeline has it loaded

    unwanted = Negative(features[job.negative.prompt], job.negative.true_cfg_scale)
    return Texts(features[job.prompt], unwanted)
