"""Jobs whose worker is silent."""

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from tests.worker.conftest import wait_until
from tests.worker.jobs import image_job
from worker.contract.jobs import FailureCode, ImageJob, JobState, Task
from worker.contract.records import Records, Room, intermediate_key, queue_key, record_key
from worker.contract.submission import enqueue
from worker.metrics import WorkerMetrics
from worker.reaper import Reaper
from worker.rq_entries import open_queue

LEASE_S = 15.0
MAX_ATTEMPTS = 2


@pytest.fixture
def reaper(redis: Redis, records: Records) -> Reaper:
    return Reaper(redis, records, WorkerMetrics(), MAX_ATTEMPTS, LEASE_S)


def lose(records: Records, job: ImageJob) -> None:
    """Take the job as a worker that then never speaks again."""
    assert records.claim(Task.IMAGES, "lost", LEASE_S, [job.model], Room(1, 1)).records


def test_a_job_of_a_silent_worker_goes_back_to_its_queue(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job())
    lose(records, job)
    reaper.sweep(records.now() + LEASE_S + 1)
    record = records.get(job.id)
    assert record is not None
    assert (record.state, record.attempt) == (JobState.QUEUED, 1)
    assert open_queue(redis, Task.IMAGES).job_ids == [job.id]


def test_a_job_of_a_living_worker_is_left_alone(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job())
    lose(records, job)
    reaper.sweep(records.now() + LEASE_S - 1)
    record = records.get(job.id)
    assert record is not None
    assert record.state is JobState.RUNNING


def test_a_job_that_costs_too_many_workers_fails(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job())
    for _ in range(MAX_ATTEMPTS):
        lose(records, job)
        reaper.sweep(records.now() + LEASE_S + 1)
    record = records.get(job.id)
    assert record is not None
    assert record.failure is not None
    assert (record.state, record.attempt) == (JobState.FAILED, MAX_ATTEMPTS)
    assert record.failure.code is FailureCode.WORKER_LOST
    assert open_queue(redis, Task.IMAGES).job_ids == []
    assert Job.fetch(job.id, redis, JSONSerializer).get_status() is JobStatus.FAILED
    assert open_queue(redis, Task.IMAGES).failed_job_registry.get_job_ids() == [job.id]
    assert open_queue(redis, Task.IMAGES).started_job_registry.get_job_ids() == []


def test_a_lost_job_that_was_to_be_canceled_is_canceled(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job())
    lose(records, job)
    records.cancel(job.id)
    reaper.sweep(records.now() + LEASE_S + 1)
    record = records.get(job.id)
    assert record is not None
    assert record.state is JobState.CANCELED


def test_an_entry_stuck_between_queue_and_worker_goes_back_after_a_lease(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job())
    records.await_entry(Task.IMAGES, 5.0)
    key = queue_key(Task.IMAGES)
    now = records.now()
    reaper.sweep(now)
    assert redis.llen(key) == 0
    reaper.sweep(now + LEASE_S)
    assert redis.lrange(key, 0, -1) == [job.id.encode()]


def test_a_strangers_entry_stuck_there_stops_no_round(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    redis.rpush(intermediate_key(Task.IMAGES), b"\xff\xfe", "unknown")
    now = records.now()
    reaper.sweep(now)
    reaper.sweep(now + LEASE_S)
    assert records.handed_over(Task.IMAGES) == []
    assert set(redis.lrange(queue_key(Task.IMAGES), 0, -1)) == {b"\xff\xfe", b"unknown"}


def test_a_queued_job_past_its_deadline_expires_though_no_worker_looks(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job(deadline_at=records.now() - 1))
    open_queue(redis, Task.IMAGES).empty()  # type: ignore[no-untyped-call]
    reaper.sweep(records.now())
    record = records.get(job.id)
    assert record is not None
    assert record.state is JobState.EXPIRED


def test_one_reaper_at_a_time_has_the_turn(redis: Redis, records: Records) -> None:
    first, second = (
        Reaper(redis, records, WorkerMetrics(), MAX_ATTEMPTS, LEASE_S) for _ in range(2)
    )
    assert [first._is_my_turn(), second._is_my_turn()] == [True, False]


def test_a_job_whose_record_cannot_be_read_is_reaped_like_any_other(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    unreadable, other = image_job(), image_job()
    for job in (unreadable, other):
        enqueue(redis, job)
        lose(records, job)
    redis.hset(record_key(unreadable.id), "job", "{}")
    reaper.sweep(records.now() + LEASE_S + 1)
    assert sorted(open_queue(redis, Task.IMAGES).job_ids) == sorted([unreadable.id, other.id])


def test_a_reaper_outlives_what_a_round_raises(redis: Redis) -> None:
    rounds: list[str] = []

    class Broken(Reaper):
        def sweep(self, now: float) -> None:  # noqa: ARG002
            rounds.append("broken")
            raise KeyError

    reaper = Broken(redis, Records(redis), WorkerMetrics(), MAX_ATTEMPTS, lease_s=0.06)
    reaper.start()
    wait_until(lambda: len(rounds) > 1, "the reaper stopped")
    reaper.stop()
