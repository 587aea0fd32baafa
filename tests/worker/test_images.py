"""One image job: its images, its progress, and the ways it can stop."""

import base64
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from models.flux.sampling import DenoiseStep
from tests.cards import SHAPES_LIMITS
from tests.worker.jobs import image as encoded_image
from tests.worker.jobs import image_job
from tests.worker.pipelines import TinyImagePipeline, resident
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import (
    Failure,
    FailureCode,
    ImageJob,
    ImageResult,
    JobState,
    LoraScale,
    NegativePrompt,
    StartImage,
    Task,
)
from worker.contract.records import Outcome, Record, Records, enqueue
from worker.images import ImagePipeline, ImageWork, encode_png, seeds_by_turn
from worker.metrics import WorkerMetrics
from worker.residency import Residency


class Studio:
    """An `ImageWork` whose pipeline can be interrupted after a step."""

    def __init__(self, records: Records, directory: Path) -> None:
        self.records = records
        self.files = ImageFiles(directory / "images")
        self.pipeline = TinyImagePipeline()
        metrics = WorkerMetrics()
        residency: Residency[ImagePipeline] = resident(self.pipeline, "flux_shapes", Task.IMAGES)
        self.work = ImageWork(residency, records, self.files, metrics)
        self.outcomes: list[Outcome] = []

    def start(self, redis: Redis, job: ImageJob) -> Record:
        enqueue(redis, job, self.records)
        [record] = self.records.take([job.id], "worker", 15.0)
        assert record is not None
        return record

    def paint(self, record: Record) -> None:
        self.work.run([record], lambda _, outcome: self.outcomes.append(outcome))


@pytest.fixture
def studio(records: Records, tmp_path: Path) -> Studio:
    return Studio(records, tmp_path)


def interrupt_after_step(
    monkeypatch: pytest.MonkeyPatch, records: Records, record: Record, number: int
) -> list[int]:
    """Cancel the job before the step after `number`; return the steps."""
    steps: list[int] = []
    denoise = TinyImagePipeline.denoise

    def interrupted(*args: object, **options: object) -> Iterator[DenoiseStep]:
        for step in denoise(*args, **options):  # type: ignore[arg-type]
            steps.append(step.step)
            yield step
            if step.step == number:
                records.cancel(record.id)

    monkeypatch.setattr(TinyImagePipeline, "denoise", interrupted)
    return steps


def test_each_seed_of_a_job_is_one_image_of_one_loop(redis: Redis, studio: Studio) -> None:
    studio.paint(studio.start(redis, image_job(seeds=(7, 200))))
    [result] = studio.outcomes
    assert isinstance(result, ImageResult)
    assert studio.pipeline.num_denoise_calls == 1
    images = [Image.open(studio.files.path(image.file_name)) for image in result.images]
    assert [image.getpixel((0, 0)) for image in images] == [(7, 7, 7), (200, 200, 200)]
    assert [image.seed for image in result.images] == [7, 200]


def test_seeds_that_do_not_fit_together_take_turns_and_count_as_one(
    redis: Redis, records: Records, tmp_path: Path
) -> None:
    studio = Studio(records, tmp_path)
    card = studio.work._residency.card("flux_shapes")
    assert card.image_limits is not None
    num_tokens = card.image_limits.max_sequence_length + 4 * 6
    tight = card.image_limits.model_copy(update={"max_tokens_at_once": 2 * num_tokens + 1})
    [model] = studio.work._residency._models.values()
    assert model.loaded is not None
    model.loaded = replace(model.loaded, card=card.model_copy(update={"image_limits": tight}))
    record = studio.start(redis, image_job(seeds=(1, 2, 3, 4, 5), num_steps=4))
    studio.paint(record)
    [result] = studio.outcomes
    assert isinstance(result, ImageResult)
    assert studio.pipeline.num_denoise_calls == 3
    assert [image.seed for image in result.images] == [1, 2, 3, 4, 5]
    levels = [Image.open(studio.files.path(i.file_name)).getpixel((0, 0)) for i in result.images]
    assert levels == [(seed, seed, seed) for seed in (1, 2, 3, 4, 5)]
    done = records.get(record.id)
    assert done is not None
    assert (done.step, done.num_steps) == (12, 12)


@pytest.mark.parametrize(
    ("room", "sizes"), [(None, [5]), (0, [1] * 5), (57, [1] * 5), (170, [3, 2])]
)
def test_a_turn_has_as_many_seeds_as_there_is_room_for(room: int | None, sizes: list[int]) -> None:
    limits = SHAPES_LIMITS.model_copy(update={"max_tokens_at_once": room})
    turns = seeds_by_turn(image_job(seeds=(1, 2, 3, 4, 5)), limits)
    assert [len(turn) for turn in turns] == sizes


def test_a_result_says_what_it_measured(redis: Redis, studio: Studio) -> None:
    studio.paint(studio.start(redis, image_job(seeds=(1, 2))))
    [result] = studio.outcomes
    assert isinstance(result, ImageResult)
    assert (result.num_text_tokens, result.num_patches) == (4, 2 * 4 * 6)
    first = result.images[0]
    assert (first.width, first.height) == (64, 96)
    assert first.num_bytes == len(studio.files.read(first.file_name))


def test_a_image_carries_what_made_it(redis: Redis, studio: Studio) -> None:
    job = image_job(prompt="a caf\N{LATIN SMALL LETTER E WITH ACUTE}", seeds=(7,))
    studio.paint(studio.start(redis, job))
    [result] = studio.outcomes
    assert isinstance(result, ImageResult)
    image = Image.open(io.BytesIO(studio.files.read(result.images[0].file_name)))
    assert json.loads(image.info["parameters"]) == {
        "model": "flux_shapes",
        "prompt": job.prompt,
        "seed": 7,
        "width": 64,
        "height": 96,
        "num_inference_steps": 4,
        "guidance_scale": None,
        "job": job.id,
    }


def test_a_image_carries_all_that_made_it(redis: Redis, studio: Studio) -> None:
    job = image_job().model_copy(
        update={
            "negative": NegativePrompt(prompt="a blue one", true_cfg_scale=2.0),
            "start": StartImage(file_name="job_1.start", strength=0.4),
        }
    )
    studio.files.store_start(base64.b64decode(encoded_image()), "job_1")
    studio.paint(studio.start(redis, job))
    [result] = studio.outcomes
    assert isinstance(result, ImageResult)
    assert studio.pipeline.last_negative is not None
    assert studio.pipeline.last_start is not None
    image = Image.open(io.BytesIO(studio.files.read(result.images[0].file_name)))
    parameters = json.loads(image.info["parameters"])
    assert parameters["negative_prompt"] == "a blue one"
    assert (parameters["true_cfg_scale"], parameters["strength"]) == (2.0, 0.4)


def test_a_png_names_its_loras() -> None:
    job = image_job().model_copy(update={"loras": (LoraScale(name="ink", scale=0.5),)})
    png = encode_png(np.zeros((8, 8, 3), np.uint8), job, seed=1)
    parameters = json.loads(Image.open(io.BytesIO(png)).info["parameters"])
    assert parameters["loras"] == [{"name": "ink", "scale": 0.5}]


def test_progress_counts_the_steps(redis: Redis, studio: Studio) -> None:
    record = studio.start(redis, image_job(num_steps=4))
    studio.paint(record)
    after = studio.records.get(record.id)
    assert after is not None
    assert (after.step, after.num_steps) == (4, 4)


def test_a_cancel_takes_effect_within_one_step(
    redis: Redis, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = studio.start(redis, image_job(num_steps=4))
    steps = interrupt_after_step(monkeypatch, studio.records, record, number=2)
    studio.paint(record)
    assert studio.outcomes == [JobState.CANCELED]
    assert steps == [1, 2, 3]


def test_a_deadline_ends_a_running_image(redis: Redis, studio: Studio) -> None:
    deadline_at = time.time() + 60
    record = studio.start(redis, image_job(deadline_at=deadline_at))
    past = record.job.model_copy(update={"deadline_at": time.time()})
    studio.paint(replace(record, job=past))
    assert studio.outcomes == [JobState.EXPIRED]


def test_a_stale_attempt_stops_and_settles_nothing(redis: Redis, studio: Studio) -> None:
    record = studio.start(redis, image_job())
    studio.records.release(record.id, record.attempt)
    studio.paint(record)
    assert studio.outcomes == []


def test_an_error_fails_the_job_without_its_words(redis: Redis, studio: Studio) -> None:
    studio.paint(studio.start(redis, image_job(prompt="broken")))
    [failure] = studio.outcomes
    assert failure == Failure(code=FailureCode.INTERNAL, message="the worker failed on this job")


def test_a_disk_that_takes_no_image_is_a_storage_failure(
    redis: Redis, studio: Studio, tmp_path: Path
) -> None:
    (tmp_path / "images").write_text("a file where the directory should be")
    studio.paint(studio.start(redis, image_job()))
    [failure] = studio.outcomes
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.STORAGE


def test_a_model_that_is_not_held_is_a_failure_of_its_own(redis: Redis, studio: Studio) -> None:
    job = image_job().model_copy(update={"model": "flux_other"})
    studio.paint(studio.start(redis, job))
    [failure] = studio.outcomes
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.MODEL_NOT_SERVED
