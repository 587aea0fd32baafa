"""What is given back when a worker is known to be dead."""

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.triptych.conftest import wait_until
from tests.worker.jobs import image_job
from tests.worker.redis_proxy import RedisProxy
from triptych.lost_workers import LostWorkers
from worker.contract.jobs import FailureCode, ImageJob, JobState, Task
from worker.contract.record import Record
from worker.contract.records import Records, Room
from worker.contract.submission import enqueue
from worker.contract.workers import WorkerState, WorkerStatus, read_all, write

LEASE_S = 600.0  # nothing ends by itself
RESULT_TTL_S = 3600.0


@pytest.fixture
def lost_workers(redis: Redis) -> Iterator[LostWorkers]:
    lost = LostWorkers(redis, RESULT_TTL_S, max_attempts=1)
    lost.start()
    yield lost
    lost.stop()


def claim(redis: Redis, worker: str) -> ImageJob:
    """Let a worker, which says that it lives, take a job of its own."""
    status = WorkerStatus(worker, Task.IMAGES, WorkerState.BUSY, 1, "here", "cpu", (), 0.0, 0.0)
    write(redis, status)
    enqueue(redis, job := image_job())
    claimed = Records(redis).claim(Task.IMAGES, worker, LEASE_S, [job.model], Room(1, 1))
    assert [record.id for record in claimed.records] == [job.id]
    return job


def record_of(redis: Redis, job: ImageJob) -> Record:
    record = Records(redis).get(job.id)
    assert record is not None
    return record


def are_gone(redis: Redis, *names: str) -> bool:
    return not {*names}.intersection(status.name for status in read_all(redis))


def test_the_dead_workers_job_alone_waits_again_and_its_name_is_gone(redis: Redis) -> None:
    held, others = claim(redis, "dead"), claim(redis, "living")
    lost = LostWorkers(redis, RESULT_TTL_S, max_attempts=2)
    lost.start()
    lost.report("dead")
    lost.stop()
    assert record_of(redis, held).state is JobState.QUEUED
    assert record_of(redis, others).state is JobState.RUNNING
    assert [status.name for status in read_all(redis)] == ["living"]


def test_a_job_that_has_cost_too_many_workers_fails(
    redis: Redis, lost_workers: LostWorkers
) -> None:
    job = claim(redis, "dead")
    lost_workers.report("dead")
    wait_until(lambda: are_gone(redis, "dead"), "never said")
    failure = record_of(redis, job).failure
    assert failure is not None
    assert failure.code is FailureCode.WORKER_LOST


def test_while_redis_is_away_it_is_tried_until_all_is_said(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [claim(redis, "first"), claim(redis, "second")]
    proxy = RedisProxy(redis_url)
    with proxy.client(num_retries=0) as client:
        lost = LostWorkers(client, RESULT_TTL_S, max_attempts=2)
        lost.start()
        proxy.go_away()
        lost.report("first")
        lost.report("second")
        tried = proxy.num_accepted
        wait_until(lambda: proxy.num_accepted >= tried + 3, "not tried again")
        assert 1 <= caplog.text.count("event=redis_away worker=first") < 3  # not at each try
        proxy.is_away = False
        wait_until(lambda: are_gone(redis, "first", "second"), "never said")
        lost.stop()
    proxy.close()
    assert [record_of(redis, job).state for job in jobs] == [JobState.QUEUED] * 2


def test_the_end_does_not_wait_for_a_redis_that_is_away(redis: Redis, redis_url: str) -> None:
    job = claim(redis, "dead")
    proxy = RedisProxy(redis_url)
    with proxy.client(num_retries=0) as client:
        lost = LostWorkers(client, RESULT_TTL_S, max_attempts=2)
        lost.start()
        proxy.go_away()
        lost.report("dead")
        lost.stop()
    proxy.close()
    assert record_of(redis, job).state is JobState.RUNNING  # until its lease ends


def test_what_no_waiting_mends_is_said_and_dropped(
    redis: Redis, lost_workers: LostWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    redis.set("triptych:running:embeddings", "a stranger's")  # where a hash is read
    lost_workers.report("one")
    wait_until(lambda: "event=give_back_failed worker=one" in caplog.text, "never said")
    redis.delete("triptych:running:embeddings")
    job = claim(redis, "two")
    lost_workers.report("two")
    wait_until(lambda: are_gone(redis, "two"), "the next death was not told")
    assert record_of(redis, job).state is JobState.FAILED
