"""From the fields of an image job to what the pipeline is given."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from models.flux.text_encoders import TextFeatures
from tests.cards import SHAPES_LIMITS, card_of
from tests.worker.jobs import image, image_job
from tests.worker.pipelines import TinyImagePipeline
from tests.worker.test_image_decoding import png_of_declared_size
from worker.contract.image_files import ImageFiles, start_name
from worker.contract.jobs import ImageJob, LoraScale, NegativePrompt, StartImage, Task
from worker.device_sharing import DeviceSharing
from worker.failures import BadInputError, NotServedError, StorageError, failure_of
from worker.image_inputs import Texts, encode_texts, read_start
from worker.metrics import WorkerMetrics
from worker.pieces import Pieces
from worker.settings import TEXT_CACHE_BYTES
from worker.text_cache import TextCache

LIMITS = SHAPES_LIMITS.model_copy(update={"loras": ("ink", "oil", "pixel-art")})
CARD = card_of("flux_shapes", Task.IMAGES, image_limits=LIMITS)
METRICS = WorkerMetrics(Task.IMAGES)


def job_with(**fields: object) -> ImageJob:
    return image_job().model_copy(update=fields)


def text_cache() -> TextCache:
    return TextCache(TEXT_CACHE_BYTES, METRICS)


def encode(*jobs: ImageJob, pipeline: TinyImagePipeline, cache: TextCache) -> list[Texts]:
    return encode_texts(jobs, pipeline, CARD, cache, DeviceSharing(Pieces()))


def test_texts_are_encoded_with_the_loras_that_a_job_chose() -> None:
    pipeline = TinyImagePipeline()
    chosen = (LoraScale(name="oil", scale=0.8), LoraScale(name="ink", scale=-1.0))
    encode(job_with(loras=chosen, prompt="a"), pipeline=pipeline, cache=text_cache())
    assert pipeline.encoded == [(("a",), {"oil": 0.8, "ink": -1.0})]


def test_a_lora_that_this_worker_does_not_have_is_not_painted_without() -> None:
    job = job_with(loras=(LoraScale(name="gone", scale=1.0),))
    with pytest.raises(NotServedError, match="flux_shapes has no LoRA gone"):
        encode(job, pipeline=TinyImagePipeline(), cache=text_cache())


def test_a_negative_prompt_is_encoded_beside_the_prompt() -> None:
    negative = NegativePrompt(prompt="x" * 100, true_cfg_scale=2.0)
    jobs = job_with(negative=negative), job_with()
    texts, alone = encode(*jobs, pipeline=TinyImagePipeline(), cache=text_cache())
    assert texts.negative is not None
    assert texts.negative.true_cfg_scale == 2.0
    assert (texts.num_tokens, texts.is_truncated) == (8, True)
    assert (alone.negative, alone.num_tokens, alone.is_truncated) == (None, 4, False)


def test_prompts_of_several_jobs_are_encoded_at_once_and_each_text_once() -> None:
    pipeline = TinyImagePipeline()
    unwanted = NegativePrompt(prompt="a star", true_cfg_scale=2.0)
    jobs = job_with(prompt="a star"), job_with(prompt="a ring", negative=unwanted)
    first, second = encode(*jobs, pipeline=pipeline, cache=text_cache())
    assert pipeline.encoded == [(("a star", "a ring"), {})]
    assert second.negative is not None
    assert torch.equal(first.prompt.pooled, second.negative.text.pooled)
    assert not torch.equal(first.prompt.pooled, second.prompt.pooled)


def test_no_more_than_eight_prompts_are_encoded_at_once() -> None:
    pipeline = TinyImagePipeline()
    jobs = [job_with(prompt=f"{number} stars") for number in range(11)]
    texts = encode(*jobs, pipeline=pipeline, cache=text_cache())
    assert [len(prompts) for prompts, _ in pipeline.encoded] == [8, 3]
    assert [int(each.prompt.pooled) for each in texts] == list(range(11))


def test_a_repeated_prompt_is_encoded_once_for_each_set_of_loras() -> None:
    pipeline, cache = TinyImagePipeline(), text_cache()
    oil = (LoraScale(name="oil", scale=0.8),)
    for loras in ((), oil, (), oil):
        encode(job_with(loras=loras, prompt="a star"), pipeline=pipeline, cache=cache)
    assert pipeline.encoded == [(("a star",), {}), (("a star",), {"oil": 0.8})]


def test_a_text_has_the_tokens_that_its_job_asks_for() -> None:
    pipeline, cache = TinyImagePipeline(), text_cache()
    of_model, [shorter], [again] = (
        encode(job_with(max_sequence_length=length), pipeline=pipeline, cache=cache)
        for length in (None, 16, 16)
    )
    assert of_model[0].prompt.text.shape[1] == LIMITS.max_sequence_length
    assert shorter.prompt.text.shape[1] == again.prompt.text.shape[1] == 16
    assert len(pipeline.encoded) == 2


def test_more_tokens_than_the_model_of_this_worker_reads_are_not_cut() -> None:
    with pytest.raises(NotServedError, match="flux_shapes reads 48 tokens, not 49"):
        encode(job_with(max_sequence_length=49), pipeline=TinyImagePipeline(), cache=text_cache())


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_start_image_is_read_and_decoded(tmp_path: Path, file_format: str) -> None:
    files = ImageFiles(tmp_path)
    files.store_start(base64.b64decode(image(width=9, file_format=file_format)), "job_1")
    start = read_start(StartImage(file_name=start_name("job_1"), strength=0.3), files, METRICS)
    assert [each.size for each in start.images] == [(9, 8)]
    assert start.strength == 0.3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<svg/>",
        base64.b64decode(image())[:45],
        base64.b64decode(png_of_declared_size(2**20, 2**20)),
        base64.b64decode(png_of_declared_size(8000, 8000)),
    ],
    ids=["nothing", "an SVG", "a truncated PNG", "a bomb", "too many pixels"],
)
def test_a_hostile_start_image_is_the_requests_fault(tmp_path: Path, content: bytes) -> None:
    files = ImageFiles(tmp_path)
    files.store_start(content, "job_1")
    with pytest.raises(BadInputError) as caught:
        read_start(StartImage(file_name=start_name("job_1"), strength=0.3), files, METRICS)
    failure = failure_of(caught.value)
    assert (failure.code, failure.param) == ("invalid_image", "image")


def test_a_start_image_that_is_gone_is_a_storage_failure(tmp_path: Path) -> None:
    start = StartImage(file_name=start_name("job_1"), strength=0.3)
    with pytest.raises(StorageError):
        read_start(start, ImageFiles(tmp_path), METRICS)


def test_each_batch_of_many_texts_is_a_piece_of_its_own_for_the_watchdog() -> None:
    pieces, began_at = Pieces(), list[float | None]()

    class Watched(TinyImagePipeline):
        def encode(
            self,
            prompts: Sequence[str],
            max_sequence_length: int,
            loras: Mapping[str, float] | None = None,
        ) -> TextFeatures:
            began_at.append(pieces.busy_since)
            return super().encode(prompts, max_sequence_length, loras)

    jobs = [job_with(prompt=f"text {number}") for number in range(60)]
    with pieces.at_work():
        encode_texts(jobs, Watched(), CARD, text_cache(), DeviceSharing(pieces))
    assert len(set(began_at)) == len(began_at) == 8
