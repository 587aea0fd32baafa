"""Jobs whose worker is silent."""

import pytest
from redis import Redis
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from tests.worker.jobs import image_job
from worker import rq_entries
from worker.contract.jobs import FailureCode, ImageJob, ImageResult, JobState, Task
from worker.contract.records import Outcome, Records, enqueue, queue_key
from worker.metrics import WorkerMetrics
from worker.reaper import Reaper
from worker.rq_entries import open_queue

LEASE_S = 15.0
MAX_ATTEMPTS = 2


@pytest.fixture
def reaper(redis: Redis, records: Records) -> Reaper:
    return Reaper(redis, records, WorkerMetrics(), MAX_ATTEMPTS, LEASE_S)


def lose(redis: Redis, records: Records, job: ImageJob) -> None:
    """Take the job as a worker that then never speaks again."""
    redis.lrem(queue_key(Task.IMAGES), 1, job.id)
    assert records.start(job.id, "lost", LEASE_S) is not None


def test_a_job_of_a_silent_worker_goes_back_to_its_queue(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job(), records)
    lose(redis, records, job)
    reaper.sweep(records.now() + LEASE_S + 1)
    record = records.get(job.id)
    assert record is not None
    assert (record.state, record.attempt) == (JobState.QUEUED, 1)
    assert open_queue(redis, Task.IMAGES).job_ids == [job.id]


def test_a_job_of_a_living_worker_is_left_alone(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job(), records)
    lose(redis, records, job)
    reaper.sweep(records.now() + LEASE_S - 1)
    record = records.get(job.id)
    assert record is not None
    assert record.state is JobState.RUNNING


def test_a_job_that_costs_too_many_workers_fails(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job(), records)
    for _ in range(MAX_ATTEMPTS):
        lose(redis, records, job)
        reaper.sweep(records.now() + LEASE_S + 1)
    record = records.get(job.id)
    assert record is not None
    assert record.failure is not None
    assert (record.state, record.attempt) == (JobState.FAILED, MAX_ATTEMPTS)
    assert record.failure.code is FailureCode.WORKER_LOST
    assert open_queue(redis, Task.IMAGES).job_ids == []
    assert Job.fetch(job.id, redis, JSONSerializer).get_status() is JobStatus.FAILED
    assert open_queue(redis, Task.IMAGES).failed_job_registry.get_job_ids() == [job.id]


def test_a_lost_job_that_was_to_be_canceled_is_canceled(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job(), records)
    lose(redis, records, job)
    records.cancel(job.id)
    reaper.sweep(records.now() + LEASE_S + 1)
    record = records.get(job.id)
    assert record is not None
    assert record.state is JobState.CANCELED


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (
            ImageResult(images=(), num_text_tokens=1, is_prompt_truncated=False, num_patches=1),
            JobStatus.FINISHED,
        ),
        (JobState.CANCELED, JobStatus.FAILED),
    ],
)
def test_a_job_that_ended_just_before_its_worker_died_is_booked_as_it_ended(
    redis: Redis, records: Records, reaper: Reaper, outcome: Outcome, status: JobStatus
) -> None:
    enqueue(redis, job := image_job(), records)
    lose(redis, records, job)
    entry = Job.fetch(job.id, redis, JSONSerializer)
    with redis.pipeline() as pipeline:
        Execution.create(entry, 120, pipeline)
        pipeline.execute()
    records.finish(job.id, 1, outcome)
    reaper.sweep(records.now() + LEASE_S)
    assert rq_entries.started(redis, Task.IMAGES) == set()
    assert list(redis.scan_iter("rq:execution:*")) == []
    assert entry.get_status() is status


def test_an_entry_stuck_between_queue_and_worker_goes_back_after_a_lease(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job(), records)
    key = queue_key(Task.IMAGES)
    redis.lmove(key, f"{key}:intermediate")
    now = records.now()
    reaper.sweep(now)
    assert redis.llen(key) == 0
    reaper.sweep(now + LEASE_S)
    assert redis.lrange(key, 0, -1) == [job.id.encode()]


def test_one_reaper_at_a_time_has_the_turn(redis: Redis, records: Records) -> None:
    first, second = (
        Reaper(redis, records, WorkerMetrics(), MAX_ATTEMPTS, LEASE_S) for _ in range(2)
    )
    assert [first._is_my_turn(), second._is_my_turn()] == [True, False]
