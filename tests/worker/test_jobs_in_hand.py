"""What a worker has in hand: leases by attempt, and claims whose replies are lost."""

from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.worker import SimpleWorker

from tests.worker.jobs import embeddings_job
from tests.worker.redis_proxy import RedisProxy, redis_proxy
from worker.contract.jobs import EmbeddingsJob, EmbeddingsResult, JobState, Task
from worker.contract.records import Record, Records, Room, record_key
from worker.contract.submission import enqueue
from worker.jobs_in_hand import JobsInHand
from worker.metrics import WorkerMetrics

LEASE_S = 15.0
RESULT = EmbeddingsResult(embeddings=(), num_tokens=0)


@pytest.fixture
def jobs(records: Records) -> JobsInHand:
    return JobsInHand(records, records, WorkerMetrics(), "worker", LEASE_S)


@pytest.fixture
def proxy(redis_url: str) -> Iterator[RedisProxy]:
    with redis_proxy(redis_url) as proxy:
        yield proxy


def behind(proxy: RedisProxy, num_retries: int) -> JobsInHand:
    """Jobs in hand whose every call goes by the proxy; the scripts are known to the server."""
    records = Records(proxy.client(num_retries))
    jobs = JobsInHand(records, records, WorkerMetrics(), "worker", LEASE_S)
    jobs.claim(Task.EMBEDDINGS, [], Room(1, 1))
    return jobs


def submit(redis: Redis, num_jobs: int = 1) -> list[EmbeddingsJob]:
    jobs = [embeddings_job("a") for _ in range(num_jobs)]
    for job in jobs:
        enqueue(redis, job)
    return jobs


def claim(jobs: JobsInHand, max_jobs: int = 8, waited_for: str | None = None) -> list[Record]:
    room = Room(max_jobs, 8)
    return jobs.claim(Task.EMBEDDINGS, [embeddings_job("a").model], room, waited_for).records


def state(records: Records, job: EmbeddingsJob) -> JobState:
    record = records.get(job.id)
    assert record is not None
    return record.state


def test_the_end_of_a_stale_attempt_leaves_the_lease_of_the_next_one(
    redis: Redis, records: Records, jobs: JobsInHand
) -> None:
    [job] = submit(redis)
    [first] = claim(jobs)
    records.release(job.id, 1)
    [second] = claim(jobs)
    jobs.settle([(first, RESULT)])
    records.renew({job.id: 2}, -1.0)
    jobs.renew()
    assert records.overdue(Task.EMBEDDINGS, records.now()) == []
    jobs.settle([(second, RESULT)])
    assert state(records, job) is JobState.SUCCEEDED


def test_a_renewal_that_finds_a_stale_attempt_leaves_the_lease_of_the_next_one(
    redis: Redis, records: Records
) -> None:
    [job] = submit(redis)

    class Side(Records):
        def renew(self, leases: dict[str, int], lease_s: float) -> list[str]:  # type: ignore[override]
            """Meanwhile the job is put back, and this worker takes it again."""
            if leases == {job.id: 1}:
                records.release(job.id, 1)
                claim(in_hand)
            return super().renew(leases, lease_s)

    in_hand = JobsInHand(records, Side(redis), WorkerMetrics(), "worker", LEASE_S)
    claim(in_hand)
    in_hand.renew()
    records.renew({job.id: 2}, -1.0)
    in_hand.renew()
    assert records.overdue(Task.EMBEDDINGS, records.now()) == []


def test_a_claim_whose_reply_is_lost_takes_nothing_twice_when_the_client_tries_again(
    redis: Redis, records: Records, proxy: RedisProxy
) -> None:
    first, second = submit(redis, 2)
    jobs = behind(proxy, num_retries=3)
    proxy.loses_replies = 1
    assert [(record.job, record.attempt) for record in claim(jobs, max_jobs=1)] == [(first, 1)]
    assert state(records, second) is JobState.QUEUED
    assert [record.job for record in claim(jobs)] == [second]


def test_what_a_claim_took_that_failed_is_given_by_the_next_one(
    redis: Redis, records: Records, proxy: RedisProxy
) -> None:
    first, second = submit(redis, 2)
    jobs = behind(proxy, num_retries=0)
    proxy.loses_replies = 1
    with pytest.raises(RedisConnectionError):
        claim(jobs, max_jobs=1)
    assert state(records, first) is JobState.RUNNING
    waited_for = records.await_entry(Task.EMBEDDINGS, 5.0)
    [record] = claim(jobs, waited_for=waited_for)
    started = records.get(first.id)
    assert started is not None
    assert (record.job, record.attempt, record.started_at) == (first, 1, started.started_at)
    assert [record.job for record in claim(jobs)] == [second]


def test_what_a_failed_claim_took_and_another_has_by_now_is_not_given_again(
    redis: Redis, records: Records, proxy: RedisProxy
) -> None:
    [job] = submit(redis)
    jobs = behind(proxy, num_retries=0)
    proxy.loses_replies = 1
    with pytest.raises(RedisConnectionError):
        claim(jobs)
    records.release(job.id, 1)
    records.claim(Task.EMBEDDINGS, "another", LEASE_S, [job.model], Room(1, 1))
    assert claim(jobs) == []


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("job", '{"a field": "of another version"}'),
        ("job", None),
        ("group", None),
        ("num_rows", None),
        ("num_rows", "many"),
    ],
)
def test_a_record_that_cannot_be_read_fails_alone(
    redis: Redis, jobs: JobsInHand, field: str, text: str | None
) -> None:
    before, bad, after = submit(redis, 3)
    if text is None:
        redis.hdel(record_key(bad.id), field)
    else:
        redis.hset(record_key(bad.id), field, text)
    assert [record.job for record in claim(jobs)] == [before, after]
    assert redis.hget(record_key(bad.id), "state") == b"failed"
    assert b"internal_error" in (redis.hget(record_key(bad.id), "failure") or b"")


def test_rq_sees_a_worker_as_busy_that_took_a_job_beside_one_that_cannot_be_read(
    redis: Redis, jobs: JobsInHand
) -> None:
    good, bad = submit(redis, 2)
    redis.hset(record_key(bad.id), "job", "{}")
    rq_worker = SimpleWorker([], name="worker", connection=redis)
    rq_worker.register_birth()  # type: ignore[no-untyped-call]
    claim(jobs)
    assert rq_worker.get_current_job_id() == good.id


def test_what_is_let_go_is_overdue_at_once(
    redis: Redis, records: Records, jobs: JobsInHand
) -> None:
    [job] = submit(redis)
    claim(jobs)
    assert records.overdue(Task.EMBEDDINGS, records.now()) == []
    jobs.let_go()
    assert records.overdue(Task.EMBEDDINGS, records.now()) == [job.id]
    jobs.renew()
    assert records.overdue(Task.EMBEDDINGS, records.now()) == [job.id]
