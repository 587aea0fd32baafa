"""Jobs whose worker is silent."""

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from tests.worker.conftest import wait_until
from tests.worker.jobs import image_job
from tests.worker.waiting import waiting
from worker.contract.jobs import FailureCode, ImageJob, JobState, Task
from worker.contract.record import queue_key, record_key
from worker.contract.records import Records, Room
from worker.contract.submission import enqueue
from worker.metrics import WorkerMetrics
from worker.reaper import Reaper
from worker.rq_entries import open_queue
from worker.settings import WorkerSettings

LEASE_S = 15.0
MAX_ATTEMPTS = 2


@pytest.fixture
def reaper(redis: Redis, records: Records) -> Reaper:
    return Reaper(redis, records, WorkerMetrics(Task.IMAGES), MAX_ATTEMPTS, LEASE_S)


def lose(records: Records, job: ImageJob) -> None:
    """Take the job as a worker that then never speaks again, until its lease has run out."""
    [record] = records.claim(Task.IMAGES, "lost", LEASE_S, [job.model], Room(1, 1)).records
    records.renew({job.id: record.attempt}, -1.0)


def test_a_job_of_a_silent_worker_goes_back_to_its_queue(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job())
    lose(records, job)
    reaper.sweep()
    record = records.get(job.id)
    assert record is not None
    assert (record.state, record.attempt) == (JobState.QUEUED, 1)
    assert open_queue(redis, Task.IMAGES).job_ids == [job.id]


def test_a_job_of_a_living_worker_is_left_alone(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job())
    records.claim(Task.IMAGES, "living", LEASE_S, [job.model], Room(1, 1))
    reaper.sweep()
    record = records.get(job.id)
    assert record is not None
    assert record.state is JobState.RUNNING


def test_a_job_that_costs_too_many_workers_fails(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job())
    for _ in range(MAX_ATTEMPTS):
        lose(records, job)
        reaper.sweep()
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
    reaper.sweep()
    record = records.get(job.id)
    assert record is not None
    assert record.state is JobState.CANCELED


def test_an_entry_of_rqs_list_that_stands_for_no_job_is_refused_and_the_rest_is_kept(
    redis: Redis, reaper: Reaper, caplog: pytest.LogCaptureFixture
) -> None:
    enqueue(redis, job := image_job())
    redis.rpush(queue_key(Task.IMAGES), b"\xff\xfe", "unknown")
    reaper.sweep()
    assert waiting(redis, Task.IMAGES) == [job.id]
    assert r"event=entry_refused entry='\udcff\udcfe' reason" in caplog.text  # a log is UTF-8
    assert "event=entry_refused entry='unknown'" in caplog.text


def test_a_queued_job_past_its_deadline_expires_though_no_worker_looks(
    redis: Redis, records: Records, reaper: Reaper
) -> None:
    enqueue(redis, job := image_job(deadline_at=records.now() - 1))
    reaper.sweep()
    record = records.get(job.id)
    assert record is not None
    assert record.state is JobState.EXPIRED


def test_a_lost_hosts_jobs_wait_again_although_its_reaper_had_the_turn(
    redis: Redis, records: Records
) -> None:
    lost = Reaper(redis, records, WorkerMetrics(Task.IMAGES), MAX_ATTEMPTS, lease_s=0.4)
    assert lost._is_my_turn()  # and is never heard of again
    enqueue(redis, job := image_job())
    lose(records, job)
    records.renew({job.id: 1}, 0.4)
    another = Reaper(redis, records, WorkerMetrics(Task.IMAGES), MAX_ATTEMPTS, lease_s=0.4)
    another.start()

    def waits_again() -> bool:
        record = records.get(job.id)
        return record is not None and record.state is JobState.QUEUED

    wait_until(waits_again, "the job was not put back")
    another.stop()


def test_by_default_a_lost_hosts_jobs_wait_again_within_20_s(
    redis: Redis, records: Records
) -> None:
    lease_s = WorkerSettings.model_fields["lease_s"].default
    reaper = Reaper(redis, records, WorkerMetrics(Task.IMAGES), MAX_ATTEMPTS, lease_s)
    last_lease_ends_s = lease_s  # if it was renewed in the host's last moment
    turn_is_free_s = 0.9 * reaper._interval_s  # if it was taken as the leases ended
    assert last_lease_ends_s + turn_is_free_s + reaper._interval_s < 20 - 2  # to be claimed


def test_one_reaper_at_a_time_has_the_turn(redis: Redis, records: Records) -> None:
    first, second = (
        Reaper(redis, records, WorkerMetrics(Task.IMAGES), MAX_ATTEMPTS, LEASE_S) for _ in range(2)
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
    reaper.sweep()
    assert sorted(open_queue(redis, Task.IMAGES).job_ids) == sorted([unreadable.id, other.id])


def test_a_reaper_outlives_what_a_round_raises(redis: Redis) -> None:
    rounds: list[str] = []

    class Broken(Reaper):
        def sweep(self) -> None:
            rounds.append("broken")
            raise KeyError

    reaper = Broken(redis, Records(redis), WorkerMetrics(Task.IMAGES), MAX_ATTEMPTS, lease_s=0.06)
    reaper.start()
    wait_until(lambda: len(rounds) > 1, "the reaper stopped")
    reaper.stop()
