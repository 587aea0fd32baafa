"""What a worker has in hand: leases by attempt, and claims whose replies are lost."""

import logging
import re
from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.worker import SimpleWorker

from tests.worker.conftest import commands_of
from tests.worker.jobs import embeddings_job
from tests.worker.redis_proxy import RedisProxy, redis_proxy
from tests.worker.test_redis_clients import configured
from worker.contract.jobs import EmbeddingsJob, EmbeddingsResult, JobState, Task
from worker.contract.record import Record, record_key
from worker.contract.records import Records, Room
from worker.contract.submission import enqueue
from worker.jobs_in_hand import JobsInHand
from worker.metrics import WorkerMetrics

LEASE_S = 15.0
RESULT = EmbeddingsResult(embeddings=(), num_tokens=0)


@pytest.fixture
def jobs(records: Records) -> JobsInHand:
    return JobsInHand(records, records, WorkerMetrics(Task.IMAGES), "worker", LEASE_S)


@pytest.fixture
def proxy(redis_url: str) -> Iterator[RedisProxy]:
    with redis_proxy(redis_url) as proxy:
        yield proxy


def behind(proxy: RedisProxy, num_retries: int) -> JobsInHand:
    """Jobs in hand whose every call goes by the proxy; the scripts are known to the server."""
    records = Records(proxy.client(num_retries))
    jobs = JobsInHand(records, records, WorkerMetrics(Task.IMAGES), "worker", LEASE_S)
    jobs.claim(Task.EMBEDDINGS, [], Room(1, 1))
    return jobs


def submit(redis: Redis, num_jobs: int = 1) -> list[EmbeddingsJob]:
    jobs = [embeddings_job("a") for _ in range(num_jobs)]
    for job in jobs:
        enqueue(redis, job)
    return jobs


def claim(jobs: JobsInHand, max_jobs: int = 8) -> list[Record]:
    return jobs.claim(Task.EMBEDDINGS, [embeddings_job("a").model], Room(max_jobs, 8)).records


def state(records: Records, job: EmbeddingsJob) -> JobState:
    record = records.get(job.id)
    assert record is not None
    return record.state


def test_the_end_of_a_stale_attempt_leaves_the_lease_of_the_next_one(
    redis: Redis, records: Records, jobs: JobsInHand
) -> None:
    [job] = submit(redis)
    [first] = claim(jobs)
    records.release({job.id: 1})
    [second] = claim(jobs)
    jobs.settle([(first, RESULT)])
    records.renew({job.id: 2}, -1.0)
    jobs.renew()
    assert records.reap(Task.EMBEDDINGS, max_losses=3) == []
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
                records.release({job.id: 1})
                claim(in_hand)
            return super().renew(leases, lease_s)

    in_hand = JobsInHand(records, Side(redis), WorkerMetrics(Task.IMAGES), "worker", LEASE_S)
    claim(in_hand)
    in_hand.renew()
    records.renew({job.id: 2}, -1.0)
    in_hand.renew()
    assert records.reap(Task.EMBEDDINGS, max_losses=3) == []


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
    [record] = claim(jobs)
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
    records.release({job.id: 1})
    records.claim(Task.EMBEDDINGS, "another", LEASE_S, [job.model], Room(1, 1))
    assert claim(jobs) == []


def lose_a_claim(jobs: JobsInHand, proxy: RedisProxy) -> None:
    proxy.loses_replies = 1
    with pytest.raises(RedisConnectionError):
        claim(jobs, max_jobs=1)
    assert jobs.has_unanswered_claim


def test_what_a_lost_claim_took_is_asked_for_although_there_is_no_room_for_more(
    redis: Redis, records: Records, proxy: RedisProxy
) -> None:
    first, second = submit(redis, 2)
    jobs = behind(proxy, num_retries=0)
    lose_a_claim(jobs, proxy)
    assert [record.job for record in jobs.claim_again()] == [first]
    assert not jobs.has_unanswered_claim
    assert jobs.claim_again() == []
    assert state(records, second) is JobState.QUEUED


def test_a_claim_that_comes_after_it_was_given_up_takes_nothing(
    redis: Redis, records: Records, proxy: RedisProxy
) -> None:
    jobs = behind(proxy, num_retries=0)
    lose_a_claim(jobs, proxy)
    token = jobs._claim_token
    assert jobs.claim_again() == []
    [job] = submit(redis)
    late = records.claim(Task.EMBEDDINGS, "worker", LEASE_S, [job.model], Room(1, 1), token)
    assert late.records == []
    assert state(records, job) is JobState.QUEUED


def test_what_a_lost_claim_took_is_given_back_by_a_worker_that_ends(
    redis: Redis, records: Records, proxy: RedisProxy
) -> None:
    [job] = submit(redis)
    jobs = behind(proxy, num_retries=0)
    lose_a_claim(jobs, proxy)
    jobs.give_back_unknown()
    record = records.get(job.id)
    assert record is not None
    assert [(past.attempt, past.end) for past in record.past_attempts] == [(1, "given_back")]
    assert redis.hget(record_key(job.id), "losses") in (None, b"0")


def test_all_jobs_are_given_back_in_one_call(
    redis: Redis, records: Records, jobs: JobsInHand
) -> None:
    given_back = submit(redis, 3)
    taken = claim(jobs)
    jobs.give_back(taken[:1])  # from here on the server knows the script
    calls = commands_of(redis, lambda: jobs.give_back(taken[1:]))
    assert len(calls) == 1
    assert [state(records, job) for job in given_back] == [JobState.QUEUED] * 3


def test_the_leases_of_what_cannot_be_given_back_end_by_themselves(
    redis: Redis, jobs: JobsInHand
) -> None:
    submit(redis, 3)
    taken = claim(jobs)
    with configured(redis, {"min-replicas-to-write": "1"}):
        jobs.give_back(taken)
    assert commands_of(redis, jobs.renew) == []


def test_an_ending_that_is_refused_for_good_harms_no_other(
    redis: Redis, records: Records, jobs: JobsInHand, caplog: pytest.LogCaptureFixture
) -> None:
    before, bad, after = submit(redis, 3)
    taken = claim(jobs)
    redis.delete(record_key(bad.id))
    redis.set(record_key(bad.id), "a stranger's")
    jobs.settle([(record, RESULT) for record in taken])
    assert [state(records, job) for job in (before, after)] == [JobState.SUCCEEDED] * 2
    assert f"event=ending_lost job={bad.id} attempt=1 reason=" in caplog.text
    assert jobs.write_endings()
    assert commands_of(redis, jobs.renew) == []


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
    assert records.reap(Task.EMBEDDINGS, max_losses=3) == []
    jobs.let_go()
    jobs.renew()
    [lost] = records.reap(Task.EMBEDDINGS, max_losses=3)
    assert lost.job_id == job.id


def test_the_log_says_each_job_once(
    redis: Redis, jobs: JobsInHand, caplog: pytest.LogCaptureFixture
) -> None:
    [job] = submit(redis)
    with caplog.at_level(logging.INFO):
        [record] = claim(jobs)
        jobs.settle([(record, RESULT)])
    [line] = [logged.getMessage() for logged in caplog.records if job.id in logged.getMessage()]
    assert re.fullmatch(
        f"event=job_ended job={job.id} task=embeddings model=f_net_shapes state=succeeded "
        r"attempt=1 wait_s=\d+\.\d{3} run_s=\d+\.\d{3} request_id=- trace_id=-",
        line,
    )
