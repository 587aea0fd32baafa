"""Requests with one idempotency key have one job, which is for all of them."""

from dataclasses import replace

import pytest
from redis import Redis

from tests.claims import claim_one
from tests.worker.jobs import embeddings_job, image_job
from worker.contract.jobs import EmbeddingsResult, JobState, Task
from worker.contract.record import AnyJob, record_key
from worker.contract.record_scripts import FORGET, KEEP, LEAVE
from worker.contract.records import Finished, Records
from worker.contract.submission import (
    Attached,
    IdempotencyKey,
    KeyReused,
    Queued,
    Refusal,
    Reuse,
    Submission,
    Terms,
    TooDeep,
    parse_submission,
    submission,
)

TTL_S = 3600
KEY = IdempotencyKey("d1" * 32, "a1" * 32)
OTHER_KEY = IdempotencyKey("d2" * 32, "a1" * 32)
AWAITED = Terms(key=KEY, is_awaited=True, ttl_s=TTL_S)
TO_COME_BACK = replace(AWAITED, is_awaited=False)
RESULT = EmbeddingsResult(embeddings=("AACAPw==",), num_tokens=3)


def send(redis: Redis, job: AnyJob, terms: Terms = AWAITED) -> Submission | Refusal:
    call = submission(job, terms)
    return parse_submission(redis.register_script(call.script)(args=call.args))


def sent(redis: Redis, terms: Terms = AWAITED) -> str:
    """The id of a new request's own job."""
    job = embeddings_job("a")
    send(redis, job, terms)
    return job.id


def leave(redis: Redis, job_id: str, waiter: str, key_digest: str = "") -> None:
    redis.register_script(LEAVE)(args=[job_id, TTL_S, waiter, key_digest])


def finish(records: Records, job_id: str) -> None:
    assert claim_one(records, Task.EMBEDDINGS) is not None
    assert records.finish([Finished(job_id, 1, RESULT)]) == [True]


def state_of(records: Records, job_id: str) -> JobState:
    record = records.get(job_id)
    assert record is not None
    return record.state


def test_a_key_that_comes_again_gets_the_job_that_it_has(redis: Redis) -> None:
    first, second = embeddings_job("a"), embeddings_job("a")
    assert [send(redis, first), send(redis, second)] == [Queued(0), Attached(first.id)]
    assert not redis.exists(record_key(second.id))


def test_it_gets_it_in_whatever_state_and_a_final_one_stays(redis: Redis, records: Records) -> None:
    first = sent(redis)
    finish(records, first)
    before = redis.hgetall(record_key(first))
    assert b"waiters" not in before
    assert send(redis, embeddings_job("a")) == Attached(first, is_over=True)
    assert redis.hgetall(record_key(first)) == before, "nor does it grow"


def test_a_key_with_another_request_is_refused(redis: Redis, records: Records) -> None:
    first, second = sent(redis), embeddings_job("b")
    terms = replace(AWAITED, key=replace(KEY, asked="a2" * 32))
    assert send(redis, second, terms) == KeyReused()
    assert not redis.exists(record_key(second.id))
    leave(redis, first, first)
    assert state_of(records, first) is JobState.CANCELED, "who was refused does not wait for it"


def test_keys_are_apart(redis: Redis) -> None:
    sent(redis)
    assert isinstance(send(redis, embeddings_job("a"), replace(AWAITED, key=OTHER_KEY)), Queued)


def test_nothing_is_kept_of_a_key_whose_request_was_refused(redis: Redis) -> None:
    full = replace(AWAITED, max_depth=0)
    assert isinstance(send(redis, embeddings_job("a"), full), TooDeep)
    assert redis.keys("triptych:idempotency:*") == []
    assert isinstance(send(redis, embeddings_job("a")), Queued)


def test_a_key_is_looked_at_before_the_depth_of_the_queue(redis: Redis) -> None:
    first = sent(redis)
    assert send(redis, embeddings_job("a"), replace(AWAITED, max_depth=0)) == Attached(first)


def test_a_submit_with_a_key_that_is_sent_again_queues_nothing_twice(
    redis: Redis, records: Records
) -> None:
    first, second = embeddings_job("a"), embeddings_job("a")
    assert [send(redis, first), send(redis, first)] == [Queued(0), Queued(0)]
    assert [send(redis, second), send(redis, second)] == [Attached(first.id)] * 2
    leave(redis, first.id, first.id)
    leave(redis, first.id, second.id)
    assert state_of(records, first.id) is JobState.CANCELED


def test_a_record_lasts_as_long_as_its_key(redis: Redis) -> None:
    records = Records(redis, result_ttl_s=TTL_S)
    first = sent(redis)
    finish(records, first)
    [key] = redis.keys("triptych:idempotency:*")
    assert TTL_S - 5 < redis.ttl(key) <= redis.ttl(record_key(first)) <= TTL_S


def test_a_key_lasts_as_long_as_its_job_may_wait(redis: Redis, records: Records) -> None:
    send(redis, embeddings_job("a", deadline_at=records.now() + 100))
    [key] = redis.keys("triptych:idempotency:*")
    assert TTL_S + 95 < redis.ttl(key) <= TTL_S + 101


def test_a_key_whose_record_is_gone_is_free(redis: Redis) -> None:
    first, second = sent(redis), embeddings_job("a")
    redis.delete(record_key(first))
    assert isinstance(send(redis, second), Queued)
    assert send(redis, embeddings_job("a")) == Attached(second.id)


def test_a_client_that_leaves_takes_no_job_from_who_has_sent_its_key_too(
    redis: Redis, records: Records
) -> None:
    first, second = sent(redis), sent(redis)
    leave(redis, first, first)
    leave(redis, first, first)  # sent again, as after a lost reply
    assert state_of(records, first) is JobState.QUEUED
    leave(redis, first, second)
    assert state_of(records, first) is JobState.CANCELED


def test_who_was_not_told_that_it_was_attached_leaves_by_its_key(
    redis: Redis, records: Records
) -> None:
    first, second = sent(redis), sent(redis)
    leave(redis, first, first)
    leave(redis, second, second, KEY.digest)
    assert state_of(records, first) is JobState.CANCELED


def test_who_leaves_by_its_key_takes_no_other_job_of_that(redis: Redis, records: Records) -> None:
    first = sent(redis)
    leave(redis, "never came", "never came", KEY.digest)
    assert state_of(records, first) is JobState.QUEUED
    own = sent(redis, replace(AWAITED, key=OTHER_KEY))
    leave(redis, own, own, OTHER_KEY.digest)
    assert state_of(records, own) is JobState.CANCELED
    leave(redis, "unknown", "unknown", "d3" * 32)


@pytest.mark.parametrize(
    "terms", [(AWAITED, TO_COME_BACK), (TO_COME_BACK, AWAITED)], ids=["second", "first"]
)
def test_a_job_that_somebody_comes_back_for_is_canceled_by_nobody_who_leaves(
    redis: Redis, records: Records, terms: tuple[Terms, Terms]
) -> None:
    first, second = (sent(redis, each) for each in terms)
    leave(redis, first, first)
    leave(redis, first, second)
    assert state_of(records, first) is JobState.QUEUED


def test_nor_one_whose_client_was_told_so_in_the_end(redis: Redis, records: Records) -> None:
    first, second = sent(redis), sent(redis)
    redis.register_script(KEEP)(args=[first, TTL_S])
    leave(redis, first, second)
    assert state_of(records, first) is JobState.QUEUED


def test_what_is_sent_after_the_last_client_has_left_runs_anew(
    redis: Redis, records: Records
) -> None:
    first, second = sent(redis), embeddings_job("a")
    assert claim_one(records, Task.EMBEDDINGS) is not None
    leave(redis, first, first)
    assert isinstance(send(redis, second), Queued)
    leave(redis, first, first)
    assert send(redis, embeddings_job("a")) == Attached(second.id)


def test_a_job_that_was_over_before_its_client_left_keeps_its_key(
    redis: Redis, records: Records
) -> None:
    first = sent(redis)
    finish(records, first)
    leave(redis, first, first)
    assert send(redis, embeddings_job("a")) == Attached(first, is_over=True)


def test_a_job_that_was_canceled_by_name_keeps_its_key(redis: Redis, records: Records) -> None:
    first = sent(redis)
    records.cancel(first)
    assert send(redis, embeddings_job("a")) == Attached(first, is_over=True)
    assert state_of(records, first) is JobState.CANCELED


def test_a_client_that_leaves_a_shared_run_takes_its_key_with_it(
    redis: Redis, records: Records
) -> None:
    reuse = Reuse("f1" * 32, "5e" * 32, reads_cache=False, joins_runs=True)
    first = sent(redis, replace(AWAITED, reuse=reuse))
    sharer = sent(redis, replace(AWAITED, reuse=reuse, key=OTHER_KEY))
    leave(redis, first, first)
    assert state_of(records, first) is JobState.CANCELED
    again = embeddings_job("a")
    send(redis, again, replace(AWAITED, reuse=reuse))
    finish(records, first)
    assert [state_of(records, id_) for id_ in (sharer, again.id)] == [JobState.SUCCEEDED] * 2


def test_a_job_that_was_canceled_and_goes_on_for_others_does_not_grow(
    redis: Redis, records: Records
) -> None:
    reuse = Reuse("f1" * 32, "5e" * 32, reads_cache=False, joins_runs=True)
    first = sent(redis, replace(AWAITED, reuse=reuse))
    sent(redis, replace(AWAITED, reuse=reuse, key=OTHER_KEY))
    records.cancel(first)
    before = redis.hgetall(record_key(first))
    again = embeddings_job("a")
    assert send(redis, again) == Attached(first)
    assert redis.hgetall(record_key(first)) == before
    leave(redis, first, again.id)
    assert send(redis, embeddings_job("a")) == Attached(first), "it keeps its key"


def test_a_forgotten_job_frees_its_key(redis: Redis, records: Records) -> None:
    first = sent(redis)
    finish(records, first)
    redis.register_script(FORGET)(args=[first])
    assert redis.keys("triptych:idempotency:*") == []


def test_so_does_one_whose_run_goes_on_for_others(redis: Redis, records: Records) -> None:
    reuse = Reuse("f1" * 32, "5e" * 32, reads_cache=False, joins_runs=True)
    first = sent(redis, replace(AWAITED, reuse=reuse))
    send(redis, embeddings_job("a"), Terms(reuse=reuse, ttl_s=TTL_S))
    records.cancel(first)
    redis.register_script(FORGET)(args=[first])
    assert redis.keys("triptych:idempotency:*") == []
    assert isinstance(send(redis, embeddings_job("a")), Queued)


def test_a_job_without_a_key_is_its_one_clients(redis: Redis, records: Records) -> None:
    job = image_job()
    send(redis, job, Terms(is_awaited=True, ttl_s=TTL_S))
    leave(redis, job.id, job.id)
    assert state_of(records, job.id) is JobState.CANCELED
