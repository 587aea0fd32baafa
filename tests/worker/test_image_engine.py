"""Image jobs on their way: together, each for itself, and the ways in which one can end."""

import base64
import errno
import gc
import io
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast
from weakref import WeakSet

import numpy as np
import pytest
import torch
from PIL import Image
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.exceptions import StopRequested
from torch import Tensor

from models.flux.text_encoders import TextFeatures
from tests.cards import SHAPES_LIMITS
from tests.worker.conftest import wait_until, wait_until_final
from tests.worker.jobs import image as encoded_image
from tests.worker.jobs import image_job, with_fields
from tests.worker.pipelines import (
    MEGABYTE,
    WAIT_LIMIT_S,
    Silent,
    Tiny,
    TinyImagePipeline,
    TinyLoader,
    TinyRow,
)
from tests.worker.studio import MODEL, Studio
from worker import image_engine, image_warm_up
from worker.contract.events import Event, PreviewEvent, StepEvent, events_key, parse_event
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import (
    Failure,
    FailureCode,
    ImageJob,
    ImageResult,
    JobState,
    LoraScale,
    NegativePrompt,
    OutputFormat,
    StartImage,
    Task,
)
from worker.contract.record import Outcome
from worker.contract.records import Records, Room, StepReport, Verdict
from worker.contract.submission import enqueue, group_of
from worker.device_memory import Memory
from worker.failures import DeviceLostError
from worker.image_engine import ImageWork
from worker.image_run import ImagePipeline, ImageRow, ImageRun
from worker.jobs_in_hand import JobsInHand
from worker.loading import Loaded, Report
from worker.metrics import WorkerMetrics
from worker.model_specs import ModelSpec
from worker.residency import Loader, Residency
from worker.row_scheduler import MAX_GROUPS
from worker.swap_policy import SwapPolicy

INTERNAL = Failure(code=FailureCode.INTERNAL, message="the worker failed on this job")


@pytest.fixture
def pipeline() -> TinyImagePipeline:
    return TinyImagePipeline()


@pytest.fixture(params=[False, True], ids=["between-steps", "beside"])
def studio(
    request: pytest.FixtureRequest, redis: Redis, tmp_path: Path, pipeline: TinyImagePipeline
) -> Studio:
    """Both ways of encoding and decoding; up to four rows pay."""
    limits = SHAPES_LIMITS.model_copy(update={"overlaps": request.param, "loras": ("ink", "oil")})
    # its rows are its own
    made = Studio(redis, tmp_path, cast(ImagePipeline, pipeline), limits)
    made.let_pay(4)
    return made


def events_of(redis_url: str, job: ImageJob) -> list[Event]:
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        entries = cast(list[tuple[str, dict[str, str]]], redis.xrange(events_key(job.id)))
    return [parse_event(entry, fields) for entry, fields in entries]


def code_of(outcome: Outcome) -> FailureCode:
    assert isinstance(outcome, Failure)
    return outcome.code


def test_each_seed_of_a_job_is_one_image_and_all_share_the_forwards(
    studio: Studio, pipeline: TinyImagePipeline
) -> None:
    [result] = studio.paint(job := image_job(seeds=(7, 200), num_steps=3))
    assert isinstance(result, ImageResult)
    assert pipeline.batch_sizes == [2, 2, 2]
    assert [studio.pixels(job, index)[0, 0].tolist() for index in (0, 1)] == [[7] * 3, [200] * 3]
    assert [image.seed for image in result.images] == [7, 200]


def test_a_job_that_joins_in_mid_run_ends_before_a_neighbour_with_more_steps(
    studio: Studio, pipeline: TinyImagePipeline
) -> None:
    studio.add(long := image_job(num_steps=6))
    studio.advance(2)
    studio.add(short := image_job(num_steps=2))
    studio.run()
    assert studio.ended == [short.id, long.id]
    assert sum(pipeline.batch_sizes) == 8
    assert max(pipeline.batch_sizes) == 2


def test_seeds_that_do_not_fit_together_take_turns_and_count_as_one(
    studio: Studio, pipeline: TinyImagePipeline
) -> None:
    studio.let_pay(2)
    studio.paint(job := image_job(seeds=(1, 2, 3, 4, 5), num_steps=4))
    assert max(pipeline.batch_sizes) == 2
    assert sum(pipeline.batch_sizes) == 5 * 4
    assert [studio.pixels(job, index)[0, 0, 0] for index in range(5)] == [1, 2, 3, 4, 5]
    done = studio.records.get(job.id)
    assert done is not None
    assert (done.step, done.num_steps) == (4, 4)


def test_images_of_other_sizes_take_turns(studio: Studio, pipeline: TinyImagePipeline) -> None:
    small, large = (
        image_job(num_steps=3),
        with_fields(image_job(num_steps=3), width=128, height=128),
    )
    studio.paint(small, large)
    assert pipeline.batch_sizes == [1] * 6
    assert studio.pixels(large).shape == (128, 128, 3)


def test_the_shapes_of_one_area_share_a_forward(
    studio: Studio, pipeline: TinyImagePipeline
) -> None:
    tall = image_job(num_steps=3)
    wide = with_fields(image_job(num_steps=3), width=tall.height, height=tall.width)
    studio.paint(tall, wide)
    assert pipeline.batch_sizes == [2] * 3
    assert studio.pixels(wide).shape == (64, 96, 3)


def test_a_result_says_what_it_measured(studio: Studio) -> None:
    [result] = studio.paint(image_job(seeds=(1, 2)))
    assert isinstance(result, ImageResult)
    assert (result.num_text_tokens, result.num_patches) == (4, 2 * 4 * 6)
    first = result.images[0]
    assert (first.width, first.height) == (64, 96)
    assert first.num_bytes == len(studio.files.read(first.file_name).content)


def test_an_image_carries_what_made_it(studio: Studio) -> None:
    job = image_job(prompt="a caf\N{LATIN SMALL LETTER E WITH ACUTE}", seeds=(7,))
    [result] = studio.paint(job)
    assert isinstance(result, ImageResult)
    image = Image.open(io.BytesIO(studio.files.read(result.images[0].file_name).content))
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


def test_an_image_carries_all_that_made_it(studio: Studio, pipeline: TinyImagePipeline) -> None:
    job = with_fields(
        image_job(),
        negative=NegativePrompt(prompt="a blue one", true_cfg_scale=2.0),
        start=StartImage(file_name="job_1.start", strength=0.4),
        loras=(LoraScale(name="ink", scale=0.5),),
    )
    studio.files.store_start(base64.b64decode(encoded_image()), "job_1")
    [result] = studio.paint(job)
    assert isinstance(result, ImageResult)
    [begun] = pipeline.begun
    assert begun["negative"] is not None
    assert begun["start"] is not None
    assert begun["loras"] == {"ink": 0.5}
    image = Image.open(io.BytesIO(studio.files.read(result.images[0].file_name).content))
    parameters = json.loads(image.info["parameters"])
    assert parameters["negative_prompt"] == "a blue one"
    assert (parameters["true_cfg_scale"], parameters["strength"]) == (2.0, 0.4)


def test_jobs_with_texts_of_another_length_have_forwards_of_their_own(
    studio: Studio, pipeline: TinyImagePipeline
) -> None:
    studio.let_pay(8)
    jobs = [
        with_fields(image_job(num_steps=2, seeds=(seed,)), max_sequence_length=length)
        for seed, length in enumerate((None, 16, None, 16), start=1)
    ]
    outcomes = studio.paint(*jobs)
    assert all(isinstance(outcome, ImageResult) for outcome in outcomes)
    assert pipeline.batch_sizes == [2] * 4
    assert [studio.pixels(job)[0, 0, 0] for job in jobs] == [1, 2, 3, 4]


def test_a_flow_shift_reaches_the_pipeline(studio: Studio, pipeline: TinyImagePipeline) -> None:
    studio.paint(with_fields(image_job(), flow_shift=3.0))
    assert [begun["flow_shift"] for begun in pipeline.begun] == [3.0]


def test_an_image_is_stored_in_the_format_of_its_job(studio: Studio) -> None:
    job = with_fields(image_job(num_steps=1), output_format="webp")
    [result] = studio.paint(job)
    assert isinstance(result, ImageResult)
    [image] = result.images
    assert image.file_name == f"{job.id}-1-0.webp"
    opened = Image.open(io.BytesIO(studio.files.read(image.file_name).content))
    assert (opened.format, opened.size) == ("WEBP", (job.width, job.height))


def test_each_step_is_an_event_with_the_time_that_remains(redis_url: str, studio: Studio) -> None:
    studio.paint(job := image_job(num_steps=3))
    steps = [event for event in events_of(redis_url, job) if isinstance(event, StepEvent)]
    assert [(event.step, event.num_steps) for event in steps] == [(1, 3), (2, 3), (3, 3)]
    assert all(event.remaining_s is not None and event.remaining_s >= 0 for event in steps)


def test_previews_are_published_after_the_steps_that_were_asked_for(
    redis_url: str, studio: Studio
) -> None:
    job = with_fields(image_job(seeds=(1, 2), num_steps=4), preview_steps=(1, 3))
    studio.paint(job)
    previews = [event for event in events_of(redis_url, job) if isinstance(event, PreviewEvent)]
    assert [(event.index, event.step) for event in previews] == [(0, 1), (1, 1), (0, 3), (1, 3)]
    shown = [Image.open(io.BytesIO(base64.b64decode(event.image))) for event in previews]
    assert [picture.getpixel((0, 0)) for picture in shown] == [(10,) * 3] * 2 + [(30,) * 3] * 2


def test_a_cancel_takes_effect_after_one_step_and_leaves_the_neighbours_alone(
    studio: Studio, pipeline: TinyImagePipeline
) -> None:
    jobs = [image_job(num_steps=5, seeds=(seed,)) for seed in (1, 2, 3)]
    studio.add(*jobs)
    studio.advance(2)
    studio.records.cancel(jobs[1].id)
    studio.run()
    assert studio.outcomes[jobs[1].id] is JobState.CANCELED
    assert pipeline.batch_sizes == [3, 3, 3, 2, 2]
    assert [studio.pixels(jobs[index])[0, 0, 0] for index in (0, 2)] == [1, 3]


def test_a_job_that_waits_for_a_place_is_canceled_after_one_step_of_another(
    redis_url: str, studio: Studio
) -> None:
    studio.let_pay(1)
    studio.add(image_job(num_steps=9), waiting := image_job(num_steps=9))
    studio.records.cancel(waiting.id)
    studio.advance(1)
    assert studio.outcomes == {waiting.id: JobState.CANCELED}
    assert not any(isinstance(event, StepEvent) for event in events_of(redis_url, waiting))


def test_a_job_that_is_being_prepared_is_canceled_after_one_step_of_another(
    redis: Redis, tmp_path: Path, pipeline: TinyImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, may_encode = pipeline.encode, threading.Event()

    def hold(prompts: Sequence[str], length: int, loras: Mapping[str, float]) -> TextFeatures:
        if "held" in prompts:
            assert may_encode.wait(WAIT_LIMIT_S)
        return encode(prompts, length, loras)

    monkeypatch.setattr(pipeline, "encode", hold)
    limits = SHAPES_LIMITS.model_copy(update={"overlaps": True})
    studio = Studio(redis, tmp_path, cast(ImagePipeline, pipeline), limits)
    studio.add(other := image_job(num_steps=9))
    studio.work.add(studio.claim(held := image_job(prompt="held")))
    studio.records.cancel(held.id)
    studio.advance(1)
    assert studio.outcomes == {held.id: JobState.CANCELED}
    may_encode.set()
    studio.run()
    assert isinstance(studio.outcomes[other.id], ImageResult)


def test_a_stale_attempt_that_waits_for_a_place_leaves(studio: Studio) -> None:
    studio.let_pay(1)
    studio.add(other := image_job(num_steps=9), stale := image_job(num_steps=9))
    studio.records.release({stale.id: 1})
    studio.advance(1)
    assert [run.record.id for run in studio.work._runs] == [other.id]
    assert studio.outcomes == {}


def test_a_report_that_fails_stops_nothing(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    report, tries = studio.records.report, list[int]()

    def fail_once(reports: Sequence[StepReport]) -> list[Verdict]:
        tries.append(1)
        if len(tries) == 1:
            raise RedisConnectionError("away")
        return report(reports)

    monkeypatch.setattr(studio.records, "report", fail_once)
    assert isinstance(studio.paint(image_job())[0], ImageResult)


def test_a_deadline_ends_a_running_image_alone(studio: Studio, pipeline: TinyImagePipeline) -> None:
    other, late = image_job(num_steps=4), image_job(num_steps=4, deadline_at=time.time() + 60)
    studio.add(other, late)
    studio.advance(2)
    [run] = [run for run in studio.work._runs if run.record.id == late.id]
    run.job = with_fields(late, deadline_at=time.time())
    studio.run()
    assert studio.outcomes[late.id] is JobState.EXPIRED
    assert pipeline.batch_sizes == [2, 2, 1, 1]


def test_a_deadline_ends_a_job_before_its_first_step(
    studio: Studio, pipeline: TinyImagePipeline
) -> None:
    job = image_job(deadline_at=time.time() + 60)
    [record] = studio.claim(job)
    studio.work.add([record])
    [run] = studio.work._runs
    run.job = with_fields(job, deadline_at=time.time())
    studio.run()
    assert studio.outcomes[job.id] is JobState.EXPIRED
    assert pipeline.batch_sizes == []


def test_a_stale_attempt_stops_and_settles_nothing(
    studio: Studio, pipeline: TinyImagePipeline
) -> None:
    studio.add(stale := image_job(), other := image_job())
    studio.advance(1)
    record = studio.records.get(stale.id)
    assert record is not None
    studio.records.release({stale.id: record.attempt})
    studio.run()
    assert studio.ended == [other.id]
    assert pipeline.batch_sizes == [2, 2, 1, 1]


def test_a_job_that_comes_back_runs_beside_its_stale_attempt(studio: Studio) -> None:
    studio.add(job := image_job())
    studio.advance(1)
    record = studio.records.get(job.id)
    assert record is not None
    studio.records.release({job.id: record.attempt})
    studio.add()
    studio.run()
    assert studio.ended == [job.id]


def test_a_forward_that_fails_ends_the_jobs_in_it(studio: Studio) -> None:
    assert studio.paint(image_job(prompt="broken"), image_job()) == [INTERNAL, INTERNAL]
    assert isinstance(studio.paint(image_job())[0], ImageResult)


def test_a_prompt_that_cannot_be_encoded_fails_alone(studio: Studio) -> None:
    [first, failed, last] = studio.paint(
        image_job(prompt="a"), image_job(prompt="unreadable"), image_job(prompt="b")
    )
    assert failed == INTERNAL
    assert isinstance(first, ImageResult)
    assert isinstance(last, ImageResult)


def test_an_image_that_cannot_be_decoded_fails_its_job_alone(studio: Studio) -> None:
    jobs = image_job(seeds=(1, 13)), image_job(seeds=(2,))
    failed, other = studio.paint(*jobs)
    assert failed == INTERNAL
    assert isinstance(other, ImageResult)
    assert studio.pixels(jobs[1])[0, 0, 0] == 2


def test_a_start_image_that_is_gone_fails_its_job_alone(studio: Studio) -> None:
    gone = with_fields(image_job(), start=StartImage(file_name="job_1.start", strength=0.4))
    failed, other = studio.paint(gone, image_job())
    assert code_of(failed) is FailureCode.STORAGE
    assert isinstance(other, ImageResult)


def test_a_lora_that_this_worker_has_not_fails_its_job_alone(studio: Studio) -> None:
    gone = with_fields(image_job(), loras=(LoraScale(name="gone", scale=1.0),))
    failed, other = studio.paint(gone, image_job())
    assert code_of(failed) is FailureCode.MODEL_NOT_SERVED
    assert isinstance(other, ImageResult)


def test_a_disk_that_takes_no_image_is_a_storage_failure(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file where the directory should be")
    [failure] = studio.paint(image_job())
    assert code_of(failure) is FailureCode.STORAGE


def test_a_full_disk_is_a_failure_that_says_so(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    [failure] = studio.paint(image_job())
    assert code_of(failure) is FailureCode.DISK_FULL


def test_a_model_that_is_not_held_is_a_failure_of_its_own(studio: Studio) -> None:
    [record] = studio.claim(job := image_job())
    elsewhere = with_fields(job, model="flux_other")
    studio.work.add([replace(record, job=elsewhere)])
    assert code_of(studio.outcomes[job.id]) is FailureCode.MODEL_NOT_SERVED


def test_rows_that_do_not_fit_run_one_by_one_and_fewer_at_once_from_then_on(
    studio: Studio, pipeline: TinyImagePipeline
) -> None:
    pipeline.most_rows = 2
    outcomes = studio.paint(*(image_job(num_steps=3) for _ in range(4)))
    assert all(isinstance(outcome, ImageResult) for outcome in outcomes)
    assert pipeline.batch_sizes == [4, 4, 1, 1, 1, 1, *[2] * 4]


def test_a_row_that_does_not_fit_alone_fails(studio: Studio, pipeline: TinyImagePipeline) -> None:
    pipeline.most_rows = 0
    assert [code_of(o) for o in studio.paint(image_job(), image_job())] == [FailureCode.GPU_OOM] * 2


@pytest.mark.parametrize("part", ["encode", "begin", "step", "preview", "decode"])
def test_a_part_that_found_too_little_memory_is_done_once_more(
    studio: Studio, pipeline: TinyImagePipeline, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    do_it, tries = getattr(pipeline, part), list[int]()

    def lack_memory_once(*args: object, **options: object) -> object:
        tries.append(1)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("beside something else")
        return do_it(*args, **options)

    monkeypatch.setattr(pipeline, part, lack_memory_once)
    [outcome] = studio.paint(with_fields(image_job(), preview_steps=(1,)))
    assert isinstance(outcome, ImageResult)


@pytest.mark.parametrize("lack", [torch.OutOfMemoryError("full"), MemoryError()], ids=repr)
@pytest.mark.parametrize("part", ["encode", "decode"])
def test_what_does_not_fit_together_is_done_one_by_one_and_what_does_not_fit_alone_fails(
    studio: Studio,
    pipeline: TinyImagePipeline,
    part: str,
    lack: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    do_it = getattr(pipeline, part)

    def lack_memory(images: Sequence[str] | Tensor, *args: object, **options: object) -> object:
        is_huge = "huge" in images if part == "encode" else bool((images == 99).any())  # type: ignore[union-attr]
        if len(images) > 1 or is_huge:
            raise lack
        return do_it(images, *args, **options)

    monkeypatch.setattr(pipeline, part, lack_memory)
    first, huge, last = studio.paint(image_job(), image_job("huge", seeds=(99,)), image_job())
    assert isinstance(first, ImageResult)
    assert isinstance(last, ImageResult)
    assert code_of(huge) is FailureCode.GPU_OOM


def test_an_image_goes_on_without_a_preview_that_does_not_fit(
    studio: Studio, pipeline: TinyImagePipeline, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack_memory(row: TinyRow) -> None:
        raise torch.OutOfMemoryError(f"step {row.step}")

    monkeypatch.setattr(pipeline, "preview", lack_memory)
    [outcome] = studio.paint(job := with_fields(image_job(), preview_steps=(1,)))
    assert isinstance(outcome, ImageResult)
    assert not [event for event in events_of(redis_url, job) if isinstance(event, PreviewEvent)]


def test_rows_that_did_not_fit_for_a_moment_stay_together(
    studio: Studio, pipeline: TinyImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, tries = pipeline.step, list[int]()

    def lack_memory_once(rows: Sequence[TinyRow]) -> None:
        tries.append(len(rows))
        if len(tries) == 1:
            raise torch.OutOfMemoryError("beside something else")
        step(rows)

    monkeypatch.setattr(pipeline, "step", lack_memory_once)
    studio.paint(image_job(num_steps=2), image_job(num_steps=2))
    assert tries == [2, 2, 2]


def test_a_lost_device_ends_the_work_although_its_job_is_over(
    studio: Studio, pipeline: TinyImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: object, **__: object) -> None:
        [run] = studio.work._runs
        run.end(JobState.EXPIRED)  # meanwhile
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(pipeline, "encode", lose)
    studio.add(image_job())
    with pytest.raises(DeviceLostError):
        studio.run()


def test_a_lost_device_ends_the_work_and_no_job(studio: Studio, tmp_path: Path) -> None:
    studio.add(image_job(prompt=f"lose {tmp_path / 'lost'}"))
    with pytest.raises(DeviceLostError):
        studio.run()
    assert studio.outcomes == {}


def test_there_is_room_for_a_job_of_any_group_where_none_is_in_hand(studio: Studio) -> None:
    room = studio.work.room()
    assert (room.rows_of_new_group, dict(room.rows)) == (1, {})
    assert room.max_jobs >= 1


def test_there_is_room_beside_what_is_in_hand(studio: Studio) -> None:
    studio.add(job := image_job(seeds=(1, 2)))
    assert studio.work.room().rows == {group_of(job): 2}
    studio.advance(1)
    assert studio.work.room().rows == {group_of(job): 2}
    studio.run()
    assert studio.work.room().rows == {}


def test_where_the_groups_in_hand_are_full_there_is_room_for_new_ones_alone(studio: Studio) -> None:
    studio.let_pay(2)
    studio.add(job := image_job(seeds=(1, 2)))
    room = studio.work.room()
    assert room.is_for_new_groups_alone
    assert (room.max_jobs, room.rows) == (MAX_GROUPS - 1, {group_of(job): 0})


def test_a_model_that_leaves_the_device_leaves_nothing_in_memory(
    redis: Redis, tmp_path: Path
) -> None:
    loader = CountingLoader()
    residency: Residency[ImagePipeline] = Residency(
        [ModelSpec(name=n, handle="flux_shapes", task=Task.IMAGES) for n in ("a", "b")],
        cast(Loader[ImagePipeline], loader),
        metrics := WorkerMetrics(Task.IMAGES),
        Silent(),
        Memory(device_bytes=MEGABYTE, host_bytes=0),  # for one of them
        SwapPolicy(patience_s=0.0),
    )
    records = Records(redis)
    jobs = JobsInHand(records, records, metrics, "w", lease_s=15.0)
    work = ImageWork(residency, records, ImageFiles(tmp_path), jobs.settle, metrics)
    for number, name in enumerate("abab"):
        wait_until(lambda name=name: bring(residency, work, name), f"{name} did not come")  # type: ignore[misc]
        enqueue(redis, job := with_fields(image_job(f"{number}"), model=name))
        work.add(jobs.claim(Task.IMAGES, [name], Room(1, 1)).records)
        while not work.is_idle:
            work.advance()
        assert wait_until_final(records, job.id).state is JobState.SUCCEEDED
    assert len(loader.num_alive) >= 4
    assert set(loader.num_alive) == {0}


class CountingLoader(TinyLoader):
    def __init__(self) -> None:
        super().__init__()
        self.num_alive: list[int] = []  # pipelines, when another is to be loaded
        self._made = WeakSet[Tiny]()

    def load(self, spec: ModelSpec, report: Report) -> Loaded[Tiny]:
        self.num_alive.append(len(self._made))
        made = super().load(spec, report)
        self._made.add(made.pipeline)
        limits = SHAPES_LIMITS.model_copy(update={"overlaps": True})
        return replace(made, card=made.card.model_copy(update={"image_limits": limits}))

    def give_back(self) -> None:
        gc.collect()


def bring(residency: Residency[ImagePipeline], work: ImageWork, name: str) -> bool:
    residency.advance([name], work.is_idle, work.models_in_use)
    return name in residency.resident


def test_a_model_is_in_use_until_its_jobs_are_settled(studio: Studio) -> None:
    assert studio.work.is_idle
    studio.add(job := image_job())
    assert not studio.work.is_idle
    assert set(studio.work.models_in_use) == {MODEL}
    studio.run()
    assert job.id in studio.outcomes
    assert set(studio.work.models_in_use) == set()


def test_what_has_steps_left_can_be_given_back_and_the_rest_is_stored(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_store, store = threading.Event(), studio.files.store

    def store_later(*args: object) -> str:
        assert may_store.wait(WAIT_LIMIT_S)
        return store(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(studio.files, "store", store_later)
    studio.add(painted := image_job(num_steps=1), half := image_job(num_steps=2))
    studio.advance()
    [untouched] = studio.claim(image_job())
    studio.work.add([untouched])
    given_back = {record.id for record in studio.work.give_back()}
    assert given_back == {half.id, untouched.id}
    assert studio.work.is_idle
    may_store.set()
    studio.work.finish()
    assert isinstance(studio.outcomes.pop(painted.id), ImageResult)
    assert studio.outcomes == {}


@pytest.fixture
def between_steps(
    redis: Redis, tmp_path: Path, pipeline: TinyImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> Studio:
    """Encodes and decodes between two steps, and one image at most; up to four rows pay."""
    monkeypatch.setattr(image_engine, "_DECODE_SHARE", 0.0)
    made = Studio(redis, tmp_path, cast(ImagePipeline, pipeline), SHAPES_LIMITS)
    made.let_pay(4)
    return made


@pytest.fixture
def order(pipeline: TinyImagePipeline, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The forwards and decodes, each with its number of images."""
    done: list[str] = []
    step, decode = pipeline.step, pipeline.decode

    def step_in_order(rows: Sequence[TinyRow]) -> None:
        done.append(f"step {len(rows)}")
        step(rows)

    def decode_in_order(patches: Tensor, width: int, height: int) -> np.ndarray:
        done.append(f"decode {len(patches)}")
        return decode(patches, width, height)

    monkeypatch.setattr(pipeline, "step", step_in_order)
    monkeypatch.setattr(pipeline, "decode", decode_in_order)
    return done


def test_images_that_end_together_are_decoded_between_the_steps_of_a_newcomer(
    between_steps: Studio, order: list[str]
) -> None:
    between_steps.add(*(image_job(num_steps=1) for _ in range(4)))
    between_steps.advance()
    between_steps.add(newcomer := image_job(num_steps=3))
    between_steps.run()
    assert order == ["step 4", "decode 1", *["step 1", "decode 1"] * 3, "decode 1"]
    assert between_steps.ended[-1] == newcomer.id
    assert len(between_steps.ended) == 5


def test_no_more_images_wait_to_be_decoded_than_one_step_makes(
    between_steps: Studio, order: list[str]
) -> None:
    between_steps.add(*(image_job(num_steps=1) for _ in range(8)))
    between_steps.run()
    assert order == ["step 4", "decode 1", "step 4", *["decode 1"] * 7]


def test_images_do_not_wait_for_one_long_step_each(
    between_steps: Studio,
    pipeline: TinyImagePipeline,
    order: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_engine, "_DECODE_SHARE", 0.5)
    step = pipeline.step

    def step_long(rows: Sequence[TinyRow]) -> None:
        step(rows)
        time.sleep(1.0)

    monkeypatch.setattr(pipeline, "step", step_long)
    between_steps.add(*(image_job(num_steps=1) for _ in range(4)))
    between_steps.advance()
    assert order == ["step 4", *["decode 1"] * 4]


def test_only_the_step_counts_for_how_many_images_are_decoded_after_it(
    between_steps: Studio, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told and measured beside it has kept the others waiting already."""
    monkeypatch.setattr(image_engine, "_DECODE_SHARE", 0.5)
    report = between_steps.work._reports.report

    def report_long(runs: Sequence[ImageRun], stepped: Sequence[ImageRow]) -> list[ImageRun]:
        time.sleep(1.0)
        return report(runs, stepped)

    monkeypatch.setattr(between_steps.work._reports, "report", report_long)
    between_steps.add(*(image_job(num_steps=1) for _ in range(4)))
    between_steps.advance()
    assert order == ["step 4", "decode 1"]


def test_what_waits_to_be_decoded_is_in_hand_and_decoded_before_the_end(
    between_steps: Studio, order: list[str]
) -> None:
    jobs = [image_job(num_steps=1) for _ in range(3)]
    between_steps.add(*jobs)
    between_steps.advance()
    assert order == ["step 3", "decode 1"]
    assert not between_steps.work.is_idle
    assert between_steps.work.give_back() == []
    between_steps.work.finish()
    assert set(between_steps.ended) == {job.id for job in jobs}


def test_a_model_is_in_use_while_images_of_ended_jobs_wait_to_be_decoded(
    between_steps: Studio, order: list[str]
) -> None:
    between_steps.add(*(image_job(num_steps=1) for _ in range(3)))
    between_steps.advance()
    between_steps.work._end([(run, JobState.EXPIRED) for run in between_steps.work._runs])
    assert set(between_steps.work.models_in_use) == {MODEL}
    between_steps.run()
    assert set(between_steps.work.models_in_use) == set()
    assert order == ["step 3", "decode 1"]


def test_what_is_decoded_is_stored_although_the_device_is_lost(
    studio: Studio, pipeline: TinyImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.add(decoded := image_job(num_steps=1), lost := image_job(num_steps=2))
    studio.advance()
    studio.work._decode_thread.finish()
    monkeypatch.setattr(pipeline, "step", lambda _: _lose())
    with pytest.raises(DeviceLostError):
        studio.work.advance()
    studio.work.salvage(WAIT_LIMIT_S)
    assert isinstance(studio.outcomes.pop(decoded.id), ImageResult)
    assert lost.id not in studio.outcomes


def test_a_disk_that_takes_for_ever_is_seen_and_salvage_does_not_wait_for_it(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_store, has_begun = threading.Event(), threading.Event()

    def hang(*_: object) -> str:
        has_begun.set()
        may_store.wait(WAIT_LIMIT_S)
        raise OSError("the disk is dead")

    monkeypatch.setattr(studio.files, "store", hang)
    assert studio.work.pieces.busy_since is None
    before = time.monotonic()
    studio.add(job := image_job(num_steps=1))
    studio.advance()
    assert has_begun.wait(WAIT_LIMIT_S)
    assert before < (studio.work.pieces.busy_since or 0.0) < time.monotonic()
    studio.work.salvage(0.01)
    assert job.id not in studio.outcomes
    may_store.set()
    wait_until(lambda: job.id in studio.outcomes, "the store never came to its end")


def test_each_image_that_is_stored_is_a_piece_of_its_own_for_the_watchdog(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_at, store = set[float](), studio.files.store

    def note(
        file: bytes, job_id: str, attempt: int, index: int, output_format: OutputFormat
    ) -> str:
        began_at.add(studio.work.pieces._began_at[threading.get_ident()])
        return store(file, job_id, attempt, index, output_format)

    monkeypatch.setattr(studio.files, "store", note)
    studio.paint(image_job(seeds=(1, 2, 3), num_steps=1))
    assert len(began_at) == 3


def _lose() -> None:
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def test_finish_waits_until_all_is_settled(studio: Studio) -> None:
    studio.add(*(jobs := [image_job() for _ in range(3)]))
    while not studio.work.is_idle:
        studio.work.advance()
    studio.work.finish()
    assert set(studio.outcomes) == {job.id for job in jobs}


@pytest.fixture
def warm(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """Ready, with everything left to measure."""
    monkeypatch.setattr(image_warm_up, "_AT_ONCE_S", 0.0)
    studio.work.warm_up(MODEL)
    return studio


def test_what_a_step_costs_is_measured_after_warming_up(
    warm: Studio, pipeline: TinyImagePipeline
) -> None:
    assert pipeline.batch_sizes == [1]
    while warm.work.wants_time:
        warm.work.use_time()
    assert pipeline.batch_sizes[:4] == [1, 1, 1, 2]
    table = warm.work._costs.of(MODEL).table
    assert len(table[112]) > 1  # of 48 text tokens and 64 patches
    assert all(seconds > 0 for costs in table.values() for seconds in costs.values())


def test_nothing_is_measured_while_jobs_are_in_hand(
    warm: Studio, pipeline: TinyImagePipeline
) -> None:
    warm.add(image_job(num_steps=2))
    warm.work.use_time()
    assert pipeline.batch_sizes == [1]
    warm.advance(2)
    warm.work.finish()
    warm.work.use_time()
    assert pipeline.batch_sizes == [1, 1, 1, 1]
    assert warm.work.wants_time


def test_under_load_steps_are_measured_now_and_then(
    warm: Studio, pipeline: TinyImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_engine, "_STEPS_A_MEASUREMENT", 3)
    warm.add(image_job(num_steps=7))
    warm.advance(7)
    warm.work.finish()
    assert len(pipeline.batch_sizes) == 1 + 7 + 2  # the image that nobody sees, the job's
    assert 112 in warm.work._costs.of(MODEL).table


def test_a_signal_ends_a_measurement_and_loses_none(
    warm: Studio, pipeline: TinyImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: object) -> None:
        raise StopRequested

    monkeypatch.setattr(pipeline, "step", stop)
    with pytest.raises(StopRequested):
        warm.work.use_time()
    assert warm.work.wants_time


def test_what_cannot_be_measured_leaves_the_worker_as_it_is(
    warm: Studio, pipeline: TinyImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "step", lambda _: 1 / 0)
    warm.work.use_time()
    assert not warm.work.wants_time
    assert warm.work._costs.of(MODEL).places_that_pay(112) == 1
