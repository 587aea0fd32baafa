"""What the painting benchmark says about progress, from the events of jobs."""

import json
from pathlib import Path

import pytest
from redis import Redis

from benchmarks.painting import (
    JobEvent,
    events_of,
    is_honest,
    jobs_of,
    progress_of,
    requests,
    step_s,
    write_shallow,
)
from models.flux.text_to_image import TextToImage
from service.main import create_app
from service.settings import ServiceSettings
from tests.claims import claim_one
from tests.service.conftest import PNG, serve
from tests.worker.jobs import image_job
from worker.contract.jobs import JobState, Task
from worker.contract.records import Finished, Preview, Records, StepReport
from worker.contract.submission import enqueue


def job(*, step_s: float, remaining_s: float | None, wait_s: float = 1.0) -> list[JobEvent]:
    """Four steps after a wait, with a preview after the first; it ends a step after the last."""
    steps = [JobEvent(wait_s + number * step_s, "step") for number in range(1, 4)]
    return [
        JobEvent(0.0, "queued"),
        JobEvent(wait_s, "started"),
        JobEvent(wait_s, "step", remaining_s),
        JobEvent(wait_s, "preview"),
        *steps,
        JobEvent(wait_s + 4 * step_s, "finished"),
    ]


def test_the_events_of_jobs_are_read_from_the_service(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    records = Records(redis)
    job = image_job()
    enqueue(redis, job)
    assert claim_one(records, Task.IMAGES) is not None
    records.report([StepReport(job.id, 1, 1, 8, 2.25, (Preview(0, 1, PNG),))])
    records.report([StepReport(job.id, 1, 2, 8, None)])
    records.finish([Finished(job.id, 1, JobState.CANCELED)])
    with serve(create_app(ServiceSettings(redis_url=redis_url, data_dir=tmp_path))) as url:
        [events] = jobs_of(url, [json.dumps({"id": job.id}).encode()])
    assert [(event.kind, event.remaining_s) for event in events] == [
        ("queued", None),
        ("started", None),
        ("step", 2.25),
        ("preview", None),
        ("step", None),
        ("finished", None),
    ]
    times_s = [event.at_s for event in events]
    assert times_s == sorted(times_s)


def test_the_wait_for_a_preview_is_told_in_steps_of_a_job_alone_and_in_company() -> None:
    progress = progress_of([job(step_s=0.5, remaining_s=2.0)], idle_step_s=0.1)
    assert progress.num_jobs == 1
    assert progress.idle_step_ms == 100
    assert progress.preview_steps_median == progress.preview_steps_p95 == 2
    assert progress.preview_idle_steps_median == progress.preview_idle_steps_p95 == 10


def test_comments_in_a_stream_are_no_events() -> None:
    assert events_of(": keep-alive\n\n: keep-alive\n\n") == []


@pytest.mark.parametrize(
    ("remaining_s", "is_good"), [(2.0, True), (1.5, True), (2.5, True), (1.4, False), (None, False)]
)
def test_an_estimate_is_honest_within_a_quarter(remaining_s: float | None, is_good: bool) -> None:
    assert is_honest(job(step_s=0.5, remaining_s=remaining_s)) is is_good


def test_a_job_of_one_step_has_no_pace() -> None:
    with pytest.raises(ValueError, match="got a job of 1 steps; its pace takes two at least"):
        step_s([JobEvent(0.0, "queued"), JobEvent(1.0, "step"), JobEvent(2.0, "finished")])


def test_a_job_without_a_preview_is_told_from_one_that_had_it() -> None:
    with pytest.raises(ValueError, match="got a job without preview: \\['queued'\\]"):
        progress_of([[JobEvent(0.0, "queued")]], idle_step_s=0.1)


def test_no_two_loads_ask_for_the_same_image() -> None:
    asked = [*requests(0), *requests(1)]
    assert len(set(asked)) == len(asked)
    assert b'"preview_steps": [1]' in requests(2, [1])[0]


def test_the_shallow_model_has_the_first_block_of_each_kind_alone(tmp_path: Path) -> None:
    write_shallow(tmp_path / "shallow")
    backbone = TextToImage.from_preset(tmp_path / "shallow").backbone
    assert (backbone.depth, backbone.depth_single_blocks) == (1, 1)
