"""A caller's list of jobs: which are in it, in what order, and that it does not grow."""

from dataclasses import replace
from typing import cast

import pytest
from redis import Redis

from tests.claims import claim_one
from tests.worker.jobs import classify_job, embeddings_job, image_job
from worker.contract import listing_script
from worker.contract.jobs import EmbeddingsResult, Task
from worker.contract.listing_script import LIST
from worker.contract.record import AnyJob, Scalar, as_text, record_key
from worker.contract.record_scripts import FORGET, KEEP
from worker.contract.records import Finished, Records
from worker.contract.submission import Reuse, Terms, submission

TTL_S = 3600
KEPT = Terms(ttl_s=TTL_S)
BRIEF = replace(KEPT, keep_s=60)
LIST_KEY = "triptych:jobs:a"


def send(redis: Redis, job: AnyJob, terms: Terms = KEPT) -> str:
    call = submission(job.model_copy(update={"caller": "a"}), terms)
    redis.register_script(call.script)(args=call.args)
    return job.id


def sent(redis: Redis, count: int, terms: Terms = KEPT) -> list[str]:
    """Ids, the newest first."""
    jobs = [embeddings_job("a").model_copy(update={"created_at": i}) for i in range(count)]
    return [send(redis, job, terms) for job in jobs][::-1]


def listed(
    redis: Redis,
    *statuses: str,
    after: str = "",
    limit: int = 100,
    task: str = "",
    model: str = "",
    caller: str = "a",
) -> list[str]:
    """The ids of all parts."""
    ids: list[str] = []
    end = ""
    while end != listing_script.END and len(ids) < limit:
        args: list[Scalar] = [caller, after, limit - len(ids), task, model, *statuses]
        reply = redis.register_script(LIST)(args=args)
        after, end, *found = (as_text(part) for part in cast(list[bytes], reply))
        ids += found
    return ids


def finish(records: Records, task: Task, job_id: str) -> None:
    assert claim_one(records, task) is not None
    result = EmbeddingsResult(embeddings=("AACAPw==",), num_tokens=3)
    assert records.finish([Finished(job_id, 1, result)]) == [True]


def forget(redis: Redis, job_id: str) -> list[str] | None:
    reply = redis.register_script(FORGET)(args=[job_id])
    return None if reply is None else [as_text(part) for part in cast(list[bytes], reply)]


def test_a_callers_jobs_are_listed_newest_first(redis: Redis) -> None:
    ids = sent(redis, 3)
    assert listed(redis) == ids
    assert listed(redis, caller="b") == []


def test_jobs_whose_records_are_kept_briefly_are_not_listed(redis: Redis) -> None:
    sent(redis, 2, BRIEF)
    assert listed(redis) == []
    assert not redis.exists(LIST_KEY)


def test_a_job_that_a_client_was_told_to_come_back_for_is_listed(redis: Redis) -> None:
    [job_id] = sent(redis, 1, BRIEF)
    redis.register_script(KEEP)(args=[job_id, TTL_S])
    assert listed(redis) == [job_id]


def test_pages_follow_each_other_while_jobs_come_and_go(redis: Redis) -> None:
    ids = sent(redis, 6)
    assert listed(redis, limit=2) == ids[:2]
    redis.delete(record_key(ids[0]), record_key(ids[1]))  # the cursor's own record too
    send(redis, embeddings_job("a"))
    assert len(listed(redis)) == 5, "another one reads, and finds them gone"
    assert listed(redis, after=ids[1], limit=2) == ids[2:4]
    redis.delete(record_key(ids[4]))
    assert listed(redis, after=ids[3], limit=2) == ids[5:]


def test_there_is_nothing_after_a_job_that_has_left_the_list(redis: Redis) -> None:
    ids = sent(redis, 3)
    for job_id in ids[1:]:
        redis.delete(record_key(job_id))
    for _ in range(listing_script._TRIMMED_AT):
        send(redis, embeddings_job("a"))
    assert redis.zscore(LIST_KEY, ids[1]) is None
    assert listed(redis, after=ids[1]) == []


def test_jobs_are_found_by_status_task_and_model(redis: Redis, records: Records) -> None:
    done, running = embeddings_job("a"), embeddings_job("b")
    send(redis, done)
    finish(records, Task.EMBEDDINGS, done.id)
    send(redis, running)
    claim_one(records, Task.EMBEDDINGS)
    queued, canceled, seen = image_job(), image_job(), classify_job("YQ==")
    for job in (queued, canceled, seen):
        send(redis, job)
    records.cancel(canceled.id)
    assert listed(redis, "succeeded") == [done.id]
    assert listed(redis, "running", "canceled") == [canceled.id, running.id]
    assert listed(redis, task="images") == [canceled.id, queued.id]
    assert listed(redis, "queued", model="vit_shapes") == [seen.id]
    records.cancel(running.id)
    assert (listed(redis, "running"), listed(redis, "canceling")) == ([], [running.id])


def test_a_long_list_is_read_by_parts(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = sent(redis, 1001)
    script = LIST.replace("first + 500 - 1", "first + 2 - 1").replace("#ids < 500", "#ids < 2")
    assert script != LIST
    monkeypatch.setattr("tests.worker.contract.test_listing.LIST", script)
    assert listed(redis, limit=7) == ids[:7]
    monkeypatch.undo()
    assert listed(redis, limit=2000) == ids


def test_ids_whose_records_are_gone_leave_as_others_come(redis: Redis) -> None:
    sizes = []
    for i in range(5 * listing_script._TRIMMED_AT):
        job = embeddings_job("a").model_copy(update={"created_at": i})
        redis.delete(record_key(send(redis, job)))
        sizes.append(redis.zcard(LIST_KEY))
    assert max(sizes) < listing_script._TRIMMED_AT


def test_the_oldest_leave_a_list_that_is_too_long(redis: Redis) -> None:
    [other] = sent(redis, 1)
    many = {f"job_{i}": i + 1 for i in range(listing_script.MAX_LISTED)}
    redis.zadd(LIST_KEY, many)
    redis.mset({record_key(job_id): "" for job_id in (*many, other)})
    for _ in range(listing_script._TRIMMED_AT):
        newest = send(redis, embeddings_job("a"))
    num_over = redis.zcard(LIST_KEY) - listing_script.MAX_LISTED
    assert 0 <= num_over < listing_script._TRIMMED_AT
    assert redis.zscore(LIST_KEY, other) is None
    assert redis.zscore(LIST_KEY, newest) is not None


def test_a_list_lasts_as_long_as_its_last_record_can(redis: Redis, records: Records) -> None:
    late = embeddings_job("a", deadline_at=records.now() + 1000)
    send(redis, late)
    assert 4590 < redis.ttl(LIST_KEY) <= 4601
    send(redis, embeddings_job("a", deadline_at=records.now() + 10))
    assert 4590 < redis.ttl(LIST_KEY) <= 4601


def test_a_forgotten_job_leaves_nothing_but_its_place(redis: Redis, records: Records) -> None:
    done, kept = embeddings_job("a"), embeddings_job("a")
    send(redis, kept)
    finish(records, Task.EMBEDDINGS, kept.id)
    before = set(redis.keys("*"))
    send(redis, done)
    finish(records, Task.EMBEDDINGS, done.id)
    assert forget(redis, done.id) is not None
    assert set(redis.keys("*")) == before
    assert redis.zscore("rq:finished:triptych-embeddings", done.id) is None
    assert listed(redis) == [kept.id]
    assert forget(redis, done.id) is None


def test_a_job_that_is_not_over_is_not_forgotten(redis: Redis, records: Records) -> None:
    [job_id] = sent(redis, 1)
    assert forget(redis, job_id) == ["running"]
    claim_one(records, Task.EMBEDDINGS)
    assert forget(redis, job_id) == ["running"]
    assert records.get(job_id) is not None


def test_a_forgotten_job_whose_run_others_share_goes_with_the_run(
    redis: Redis, records: Records
) -> None:
    reuse = Reuse("f1" * 32, "5e" * 32, reads_cache=False, joins_runs=True)
    first, second = sent(redis, 2, replace(KEPT, reuse=reuse))[::-1]
    records.cancel(first)
    assert forget(redis, first) == ["forgotten", ""]
    assert (records.get(first), listed(redis)) == (None, [second])
    finish(records, Task.EMBEDDINGS, first)
    record = records.get(second)
    assert record is not None
    assert record.result is not None
    assert redis.ttl(record_key(first)) <= 1
