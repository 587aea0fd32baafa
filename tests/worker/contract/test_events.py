"""What a client can follow of a job, read from the stream as the API does."""

import base64

import pytest
from redis import Redis

from tests.worker.jobs import embeddings_job, image_job
from worker.contract.events import (
    Event,
    FinishedEvent,
    PreviewEvent,
    QueuedEvent,
    StartedEvent,
    StepEvent,
    events_key,
    parse_event,
)
from worker.contract.jobs import ImageJob, JobState
from worker.contract.record import AnyJob, as_text
from worker.contract.records import Finished, Preview, Records, Room, StepReport
from worker.contract.submission import enqueue


def events(redis: Redis, job: AnyJob) -> list[Event]:
    """Without their ids, which are the server's."""
    entries = redis.xrange(events_key(job.id)) or []
    return [
        parse_event("", {as_text(name): as_text(value) for name, value in fields.items()})
        for _, fields in entries
        if fields
    ]


def run(redis: Redis, job: AnyJob) -> Records:
    """Queue the job and take it."""
    records = Records(redis)
    enqueue(redis, job)
    assert records.claim(job.task, "worker", 15.0, [job.model], Room(1, 1)).records
    return records


@pytest.fixture
def job() -> ImageJob:
    return image_job()


def test_a_job_is_followed_from_the_queue_to_its_end(redis: Redis, job: ImageJob) -> None:
    enqueue(redis, image_job())
    enqueue(redis, job)
    records = Records(redis)
    records.claim(job.task, "worker", 15.0, [job.model], Room(2, 2))
    preview = Preview(index=0, step=2, png=b"png")
    records.report([StepReport(job.id, 1, 2, 4, 1.25, (preview,))])
    records.finish([Finished(job.id, 1, JobState.EXPIRED)])
    assert events(redis, job) == [
        QueuedEvent(id="", position=1),
        StartedEvent(id="", attempt=1),
        StepEvent(id="", step=2, num_steps=4, remaining_s=1.25),
        PreviewEvent(id="", index=0, step=2, image=base64.b64encode(b"png").decode()),
        FinishedEvent(id="", state=JobState.EXPIRED),
    ]


def test_a_job_of_every_task_has_its_events(redis: Redis) -> None:
    run(redis, job := embeddings_job("a"))
    assert events(redis, job) == [QueuedEvent(id="", position=0), StartedEvent(id="", attempt=1)]


def test_a_step_may_have_no_estimate_yet(redis: Redis, job: ImageJob) -> None:
    run(redis, job).report([StepReport(job.id, 1, 1, 4, None)])
    assert events(redis, job)[-1] == StepEvent(id="", step=1, num_steps=4, remaining_s=None)


def test_a_step_that_was_reported_before_is_no_event(redis: Redis, job: ImageJob) -> None:
    records = run(redis, job)
    before = events(redis, job)
    records.report([StepReport(job.id, 1, 0, 4, None)])  # none is done yet
    assert events(redis, job) == before
    for _ in range(2):
        records.report([StepReport(job.id, 1, 1, 4, None)])
    assert events(redis, job)[len(before) :] == [StepEvent(id="", step=1, num_steps=4)]


def test_a_stale_attempt_publishes_nothing(redis: Redis, job: ImageJob) -> None:
    records = run(redis, job)
    before = events(redis, job)
    records.report([StepReport(job.id, 7, 1, 4, None, (Preview(0, 1, b"png"),))])
    records.finish([Finished(job.id, 7, JobState.EXPIRED)])
    assert events(redis, job) == before


def test_a_job_whose_worker_was_lost_is_queued_and_started_again(
    redis: Redis, job: ImageJob
) -> None:
    records = run(redis, job)
    records.release({job.id: 1})
    records.claim(job.task, "another", 15.0, [job.model], Room(1, 1))
    assert events(redis, job)[2:] == [
        QueuedEvent(id="", position=0),
        StartedEvent(id="", attempt=2),
    ]


def test_a_job_canceled_in_the_queue_is_finished(redis: Redis, job: ImageJob) -> None:
    enqueue(redis, job)
    Records(redis).cancel(job.id)
    assert events(redis, job)[-1] == FinishedEvent(id="", state=JobState.CANCELED)


def test_the_events_outlive_the_end_for_a_while(redis: Redis, job: ImageJob) -> None:
    records = run(redis, job)
    assert redis.ttl(events_key(job.id)) == -1
    records.finish([Finished(job.id, 1, JobState.EXPIRED)])
    assert 590 < redis.ttl(events_key(job.id)) <= 600


def test_the_stream_is_capped(redis: Redis, job: ImageJob) -> None:
    records = run(redis, job)
    records.report([StepReport(job.id, 1, step, 1000, None) for step in range(1000)])
    assert 256 <= redis.xlen(events_key(job.id)) < 512
    assert events(redis, job)[-1] == StepEvent(id="", step=999, num_steps=1000)
