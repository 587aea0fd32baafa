"""The records on a real server: who may change what, and when; RQ's own classes read its books."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer

from tests.worker.jobs import classify_job, embeddings_job, image_job
from tests.worker.waiting import rq_list, waiting
from worker.contract.events import events_key
from worker.contract.jobs import EmbeddingsResult, Failure, FailureCode, JobState, Task
from worker.contract.record import AnyJob, Outcome, Record, as_text, queue_key, record_key
from worker.contract.records import (
    FINISHED_CHANNEL,
    Claim,
    Finished,
    LostJob,
    Records,
    Room,
    StepReport,
    Verdict,
)
from worker.contract.submission import enqueue
from worker.rq_entries import open_queue

LEASE_S = 15.0
ROOM = Room(max_jobs=8, rows_of_new_group=8)
RESULT = EmbeddingsResult(embeddings=("AACAPw==",), num_tokens=3)
FAILURE = Failure(code=FailureCode.INTERNAL, message="it broke")
OTHER_FAILURE = Failure(code=FailureCode.INTERNAL, message="it broke elsewhere")


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis, result_ttl_s=3600.0)


@pytest.fixture
def memory_is_full(redis: Redis) -> Iterator[Callable[[], None]]:
    """From its call on the server has no memory for more."""

    def fill() -> None:
        redis.config_set("maxmemory", 1)

    yield fill
    redis.config_set("maxmemory", 0)


def submit(redis: Redis, job: AnyJob) -> str:
    enqueue(redis, job)
    return job.id


def claim(records: Records, job: AnyJob, room: Room = ROOM) -> Claim:
    """Take what waits in the queue of the job, of its model."""
    return records.claim(job.task, "worker", LEASE_S, [job.model], room)


def start(redis: Redis, records: Records, job: AnyJob) -> str:
    enqueue(redis, job)
    [record] = claim(records, job).records
    assert record.id == job.id
    return job.id


def finish(records: Records, job_id: str, outcome: Outcome, attempt: int = 1) -> bool:
    [is_current] = records.finish([Finished(job_id, attempt, outcome)])
    return is_current


def report(records: Records, job_id: str, attempt: int = 1, step: int = 1) -> Verdict:
    [verdict] = records.report([StepReport(job_id, attempt, step, 4, None)])
    return verdict


def found(records: Records, job_id: str) -> Record:
    record = records.get(job_id)
    assert record is not None
    return record


def test_an_unknown_job_has_no_record(records: Records) -> None:
    assert records.get("job_none") is None
    assert records.cancel("job_none") is None
    assert not finish(records, "job_none", RESULT)


def test_a_job_can_be_claimed_once(redis: Redis, records: Records) -> None:
    submit(redis, job := embeddings_job("a"))
    first, second = claim(records, job), claim(records, job)
    assert [record.job for record in first.records] == [job]
    assert second.records == []


def test_what_waits_is_claimed_in_its_order_in_one_step(redis: Redis, records: Records) -> None:
    jobs = [embeddings_job("a") for _ in range(200)]
    for job in jobs:
        submit(redis, job)
    claimed = records.claim(Task.EMBEDDINGS, "worker", LEASE_S, [jobs[0].model], Room(150, 999))
    assert [record.id for record in claimed.records] == [job.id for job in jobs[:150]]
    assert {(record.state, record.attempt, record.worker) for record in claimed.records} == {
        (JobState.RUNNING, 1, "worker")
    }
    assert waiting(redis, jobs[0].task) == [job.id for job in jobs[150:]]


def test_a_group_is_claimed_as_far_as_it_has_room_and_others_go_on(
    redis: Redis, records: Records
) -> None:
    small = [image_job(seeds=(1, 2)) for _ in range(3)]
    large = image_job().model_copy(update={"width": 128})
    for job in (*small, large):
        submit(redis, job)
    room = Room(max_jobs=9, rows_of_new_group=1, rows={"flux_shapes/6144": 3})
    claimed = claim(records, large, room).records
    assert {record.id for record in claimed} == {small[0].id, small[1].id, large.id}
    assert waiting(redis, large.task) == [small[2].id]


def test_no_room_claims_nothing(redis: Redis, records: Records) -> None:
    submit(redis, job := image_job())
    for room in (Room(0, 9), Room(9, 0), Room(9, 9, {"flux_shapes/6144": 0})):
        assert claim(records, job, room) == Claim([], [], [])
    assert waiting(redis, job.task) == [job.id]


def test_jobs_of_other_models_stay_and_are_named(redis: Redis, records: Records) -> None:
    job = embeddings_job("a")
    others = [embeddings_job("b").model_copy(update={"model": name}) for name in "xyx"]
    for each in (others[0], job, *others[1:]):
        submit(redis, each)
    claimed = claim(records, job)
    assert ([record.id for record in claimed.records], claimed.others) == ([job.id], ["x", "y"])
    assert set(waiting(redis, job.task)) == {other.id for other in others}


def test_who_waits_for_jobs_is_woken_by_the_first_and_takes_none(
    redis: Redis, records: Records
) -> None:
    assert not records.await_jobs(Task.EMBEDDINGS, 0.01)
    job = embeddings_job("a")
    timer = threading.Timer(0.1, enqueue, (redis, job))
    timer.start()
    assert records.await_jobs(Task.EMBEDDINGS, 30.0)
    assert records.await_jobs(Task.EMBEDDINGS, 30.0)
    timer.join()  # it has its reply before the client is closed
    assert waiting(redis, job.task) == [job.id]


def test_once_no_job_waits_any_more_nobody_is_woken(redis: Redis, records: Records) -> None:
    start(redis, records, embeddings_job("a"))
    assert not records.await_jobs(Task.EMBEDDINGS, 0.01)
    records.cancel(submit(redis, embeddings_job("a")))
    assert not records.await_jobs(Task.EMBEDDINGS, 0.01)


def test_a_record_that_somebody_deleted_stops_no_claim(redis: Redis, records: Records) -> None:
    gone, *jobs = [embeddings_job("a") for _ in range(3)]
    for job in (gone, *jobs):
        submit(redis, job)
    redis.delete(record_key(gone.id))
    assert [record.job for record in claim(records, gone).records] == jobs
    submit(redis, gone)
    assert [record.job for record in claim(records, gone).records] == [gone]


def test_a_claim_brings_64_mib_of_inputs_at_most_but_one_job_whatever_its_size(
    redis: Redis, records: Records
) -> None:
    large, *small = (classify_job(image) for image in ("A" * 65 * 2**20, "YQ==", "Yg=="))
    for job in (large, *small):
        submit(redis, job)
    assert [record.id for record in claim(records, large).records] == [large.id]
    assert waiting(redis, large.task) == [job.id for job in small]
    assert [record.job for record in claim(records, large).records] == small


@pytest.mark.parametrize(
    ("outcome", "final"),
    [
        (RESULT, JobState.SUCCEEDED),
        (FAILURE, JobState.FAILED),
        (JobState.CANCELED, JobState.CANCELED),
        (JobState.EXPIRED, JobState.EXPIRED),
    ],
)
def test_a_running_job_ends_in_each_final_state(
    redis: Redis, records: Records, outcome: Outcome, final: JobState
) -> None:
    job_id = start(redis, records, embeddings_job("a"))
    assert finish(records, job_id, outcome)
    record = found(records, job_id)
    assert (record.state, record.result, record.failure) == (
        final,
        outcome if outcome is RESULT else None,
        outcome if outcome is FAILURE else None,
    )
    assert record.finished_at is not None


def test_several_jobs_end_in_one_step_each_for_itself(redis: Redis, records: Records) -> None:
    first, second = (start(redis, records, embeddings_job("a")) for _ in range(2))
    endings = [
        Finished(first, 1, RESULT),
        Finished("job_none", 1, RESULT),
        Finished(second, 2, RESULT),
        Finished(second, 1, FAILURE),
    ]
    assert records.finish(endings) == [True, False, False, True]
    assert [found(records, job_id).state for job_id in (first, second)] == [
        JobState.SUCCEEDED,
        JobState.FAILED,
    ]


@pytest.mark.parametrize("outcome", [RESULT, FAILURE, JobState.EXPIRED])
def test_an_ending_that_is_sent_again_gets_the_same_answer_and_counts_once(
    redis: Redis, records: Records, outcome: Outcome
) -> None:
    job_id = start(redis, records, embeddings_job("a"))
    redis.hset("rq:worker:worker", "state", "busy")
    endings = [Finished(job_id, 1, outcome)]
    assert records.finish(endings, "worker") == [True]
    before = redis.hgetall(record_key(job_id)), redis.xlen(events_key(job_id))
    assert records.finish(endings, "worker") == [True]
    assert (redis.hgetall(record_key(job_id)), redis.xlen(events_key(job_id))) == before
    counts = redis.hmget("rq:worker:worker", "successful_job_count", "failed_job_count")
    assert counts == ([b"1", b"0"] if outcome is RESULT else [b"0", b"1"])


@pytest.mark.parametrize("final", [RESULT, FAILURE, JobState.CANCELED, JobState.EXPIRED])
def test_a_final_state_never_changes(redis: Redis, records: Records, final: Outcome) -> None:
    job_id = start(redis, records, job := embeddings_job("a"))
    finish(records, job_id, final)
    before = redis.hgetall(record_key(job_id))
    others: list[Outcome] = [RESULT, FAILURE, OTHER_FAILURE, JobState.CANCELED, JobState.EXPIRED]
    others.remove(final)
    assert not any(finish(records, job_id, other) for other in others)
    assert not finish(records, job_id, final, attempt=2)
    assert records.release({job_id: 1}) == [job_id]
    assert report(records, job_id) is Verdict.STALE
    redis.rpush(queue_key(job.task), job_id)
    assert claim(records, job).records == []
    assert records.mend_rq_list(job.task) == []
    records.cancel(job_id)
    assert records.renew({job_id: 1}, LEASE_S) == [job_id]
    assert records.reap_worker("worker", max_losses=1) == []
    assert records.expire_queued() == 0
    assert redis.hgetall(record_key(job_id)) == before


def test_a_stale_attempt_can_change_nothing(redis: Redis, records: Records) -> None:
    job_id = start(redis, records, job := image_job())
    records.release({job_id: 1})
    claim(records, job)
    before = redis.hgetall(record_key(job_id))
    assert report(records, job_id, attempt=1) is Verdict.STALE
    assert not finish(records, job_id, FAILURE, attempt=1)
    assert records.release({job_id: 1}) == [job_id]
    assert records.renew({job_id: 1}, 10 * LEASE_S) == [job_id]
    assert redis.hgetall(record_key(job_id)) == before
    assert finish(records, job_id, JobState.CANCELED, attempt=2)


def test_every_final_state_wakes_who_waits(redis: Redis, records: Records) -> None:
    with redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(FINISHED_CHANNEL)
        pubsub.get_message(timeout=5.0)
        done = start(redis, records, embeddings_job("a"))
        canceled = submit(redis, embeddings_job("a"))
        finish(records, done, RESULT)
        records.cancel(canceled)
        messages = [pubsub.get_message(timeout=5.0) for _ in range(2)]
    assert [message and message["data"] for message in messages] == [
        done.encode(),
        canceled.encode(),
    ]


def test_final_records_expire_and_others_do_not(redis: Redis, records: Records) -> None:
    job_id = start(redis, records, embeddings_job("a"))
    assert redis.ttl(record_key(job_id)) == -1
    finish(records, job_id, RESULT)
    assert 3590 < redis.ttl(record_key(job_id)) <= 3600


@pytest.mark.parametrize("images", [(), ("YQ==",), ("YQ==", "Yg==", "YQ==")])
def test_the_images_of_a_job_come_to_its_worker_in_their_order(
    redis: Redis, records: Records, images: tuple[str, ...]
) -> None:
    job = classify_job("").model_copy(update={"images": images})
    enqueue(redis, job)
    assert [record.job for record in claim(records, job).records] == [job]


def test_a_final_record_forgets_the_bytes_of_its_images(redis: Redis, records: Records) -> None:
    job_id = start(redis, records, classify_job("YQ=="))
    finish(records, job_id, FAILURE)
    assert "YQ==" not in str(redis.hgetall(record_key(job_id)))
    assert records.get(job_id) is not None


def test_cancel_ends_a_queued_job_and_takes_it_off_the_queue(
    redis: Redis, records: Records
) -> None:
    job_id = submit(redis, job := image_job())
    record = records.cancel(job_id)
    assert record is not None
    assert record.state is JobState.CANCELED
    assert waiting(redis, job.task) == []
    assert not redis.exists(f"rq:job:{job_id}")


def test_cancel_asks_a_running_job_to_stop(redis: Redis, records: Records) -> None:
    job_id = start(redis, records, image_job())
    assert report(records, job_id) is Verdict.GO_ON
    record = records.cancel(job_id)
    assert record is not None
    assert (record.state, record.is_cancel_requested) == (JobState.RUNNING, True)
    assert report(records, job_id) is Verdict.CANCEL


def test_the_steps_of_several_jobs_are_reported_together(redis: Redis, records: Records) -> None:
    first, second = (start(redis, records, image_job(num_steps=8)) for _ in range(2))
    records.cancel(second)
    reports = [
        StepReport(first, 1, 3, 8, 0.5),
        StepReport(second, 2, 4, 8, 0.5),
        StepReport(second, 1, 5, 8, None),
    ]
    assert records.report(reports) == [Verdict.GO_ON, Verdict.STALE, Verdict.CANCEL]
    assert [
        (found(records, job).step, found(records, job).num_steps) for job in (first, second)
    ] == [
        (3, 8),
        (5, 8),
    ]


def test_a_released_job_is_first_in_its_queue_with_its_attempt_kept(
    redis: Redis, records: Records
) -> None:
    released = start(redis, records, job := image_job())
    other = submit(redis, image_job())
    assert records.release({released: 1}) == []
    assert waiting(redis, job.task) == [released, other]
    assert [record.attempt for record in claim(records, job, Room(1, 1)).records] == [2]


def test_a_released_job_that_was_to_be_canceled_is_canceled(redis: Redis, records: Records) -> None:
    job_id = start(redis, records, image_job())
    records.cancel(job_id)
    assert records.release({job_id: 1}) == []
    assert found(records, job_id).state is JobState.CANCELED


def test_a_job_is_reaped_once_its_lease_ran_out(redis: Redis, records: Records) -> None:
    job_id = start(redis, records, job := image_job())
    assert records.reap(Task.IMAGES, max_losses=3) == []
    records.renew({job_id: 1}, -1.0)
    assert records.reap(Task.CLASSIFY, max_losses=3) == []
    assert records.reap(Task.IMAGES, max_losses=3) == [
        LostJob(job_id, Task.IMAGES, job.model, attempt=1, is_given_up=False)
    ]
    assert records.reap(Task.IMAGES, max_losses=3) == []
    assert waiting(redis, Task.IMAGES) == [job_id]


def test_what_a_dead_worker_had_is_put_back_at_once_and_others_jobs_go_on(
    redis: Redis, records: Records
) -> None:
    job_id = start(redis, records, job := image_job())
    other_id = submit(redis, image_job())
    records.claim(Task.IMAGES, "another", LEASE_S, [job.model], ROOM)
    lost = records.reap_worker("worker", max_losses=3)
    assert [(each.job_id, each.is_given_up) for each in lost] == [(job_id, False)]
    assert waiting(redis, Task.IMAGES) == [job_id]
    assert found(records, other_id).state is JobState.RUNNING


def test_what_a_dead_worker_had_sent_claims_nothing_any_more(
    redis: Redis, records: Records
) -> None:
    job_id = submit(redis, job := image_job())
    records.reap_worker("worker", max_losses=3)
    assert claim(records, job).records == []
    assert waiting(redis, Task.IMAGES) == [job_id]


def test_a_job_that_lost_too_many_workers_fails_and_is_quarantined(
    redis: Redis, records: Records
) -> None:
    submit(redis, job := image_job())
    for worker in ("one", "two"):
        records.claim(Task.IMAGES, worker, LEASE_S, [job.model], ROOM)
        [lost] = records.reap_worker(worker, max_losses=2)
    assert lost == LostJob(job.id, Task.IMAGES, job.model, attempt=2, is_given_up=True)
    record = found(records, job.id)
    assert record.failure is not None
    assert (record.state, record.failure.code) == (JobState.FAILED, FailureCode.WORKER_LOST)
    assert redis.zrange("triptych:quarantined", 0, -1) == [job.id.encode()]
    assert 3590 < redis.ttl("triptych:quarantined") <= 3600


def test_a_job_that_was_given_back_has_not_lost_a_worker(redis: Redis, records: Records) -> None:
    submit(redis, job := image_job())
    for attempt in (1, 2, 3):
        claim(records, job)
        assert records.release({job.id: attempt}) == []
    claim(records, job)
    [lost] = records.reap_worker("worker", max_losses=2)
    assert (lost.attempt, lost.is_given_up) == (4, False)


def test_a_record_tells_of_its_past_attempts(redis: Redis, records: Records) -> None:
    before = records.now()
    job_id = start(redis, records, job := image_job())
    records.release({job_id: 1})
    records.claim(Task.IMAGES, 'a "strange" one', LEASE_S, [job.model], ROOM)
    records.reap_worker('a "strange" one', max_losses=1)
    past = found(records, job_id).past_attempts
    assert [(each.attempt, each.worker, each.end) for each in past] == [
        (1, "worker", "given_back"),
        (2, 'a "strange" one', "worker_lost"),
    ]
    times = [time for each in past for time in (each.started_at, each.ended_at)]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= records.now()


def test_a_queued_job_past_its_deadline_is_never_claimed(redis: Redis, records: Records) -> None:
    late = submit(redis, job := image_job(deadline_at=records.now() - 1))
    in_time = submit(redis, image_job())
    assert [record.id for record in claim(records, job, Room(1, 1)).records] == [in_time]
    assert found(records, late).state is JobState.EXPIRED
    assert not redis.exists(f"rq:job:{late}")


def test_queued_jobs_past_their_deadline_expire_though_no_worker_looks(
    redis: Redis, records: Records
) -> None:
    past, future = records.now() - 1, records.now() + 60
    late = [submit(redis, image_job(deadline_at=past)) for _ in range(3)]
    in_time = [submit(redis, image_job(deadline_at=each)) for each in (future, None)]
    assert records.expire_queued() == 3
    assert {found(records, job_id).state for job_id in late} == {JobState.EXPIRED}
    assert waiting(redis, Task.IMAGES) == in_time
    assert records.expire_queued() == 0


def test_a_running_job_past_its_deadline_expires_when_it_is_queued_again(
    redis: Redis, records: Records
) -> None:
    job_id = start(redis, records, image_job(deadline_at=records.now() + 60))
    redis.zadd("triptych:deadlines", {job_id: records.now()})  # as if a minute had passed
    assert records.expire_queued() == 0
    records.release({job_id: 1})
    assert records.expire_queued() == 1
    assert found(records, job_id).state is JobState.EXPIRED


def test_nothing_of_a_final_job_is_kept_for_ever(redis: Redis, records: Records) -> None:
    deadline_at = records.now() + 60
    finish(records, start(redis, records, image_job(deadline_at=deadline_at)), FAILURE)
    records.cancel(submit(redis, image_job(deadline_at=deadline_at)))
    submit(redis, image_job(deadline_at=records.now() - 1))
    records.expire_queued()
    start(redis, records, image_job())
    records.reap_worker("worker", max_losses=1)
    assert [key for key in redis.keys("triptych:*") if redis.ttl(key) == -1] == []


def test_rqs_list_loses_one_job_at_a_time_whichever_it_is(redis: Redis, records: Records) -> None:
    ids = [submit(redis, image_job()) for _ in range(5)]
    for job_id in (ids[1], ids[4], ids[0], ids[3]):
        records.cancel(job_id)
        ids.remove(job_id)
        assert sorted(rq_list(redis, Task.IMAGES)) == sorted(ids)


@pytest.mark.parametrize("stranger", [b"unknown", b"\xff\xfe"])
def test_an_entry_of_rqs_list_that_stands_for_no_job_is_refused_and_booked_as_failed(
    redis: Redis, records: Records, stranger: bytes
) -> None:
    job_id = submit(redis, image_job())
    redis.hset(b"rq:job:" + stranger, "status", "queued")
    redis.rpush(queue_key(Task.IMAGES), stranger)
    assert records.mend_rq_list(Task.IMAGES) == [as_text(stranger)]
    assert waiting(redis, Task.IMAGES) == [job_id]
    assert redis.hget(b"rq:job:" + stranger, "status") == b"failed"
    assert records.mend_rq_list(Task.IMAGES) == []


def test_keys_of_any_type_at_a_strangers_entry_stop_no_mending(
    redis: Redis, records: Records
) -> None:
    redis.set("rq:job:one", "a string")
    redis.set("rq:results:two", "a string")
    redis.hset("rq:job:two", "status", "queued")
    redis.set(record_key("three"), "a string")
    redis.rpush(queue_key(Task.IMAGES), "one", "two", "three")
    assert sorted(records.mend_rq_list(Task.IMAGES)) == ["one", "three", "two"]
    assert rq_list(redis, Task.IMAGES) == []


def test_jobs_are_taken_and_rqs_list_is_mended_though_rqs_tools_emptied_it(
    redis: Redis, records: Records
) -> None:
    ids = [submit(redis, job := image_job()) for _ in range(4)]
    open_queue(redis, Task.IMAGES).empty()  # type: ignore[no-untyped-call]
    assert [record.id for record in claim(records, job, Room(1, 1)).records] == ids[:1]
    assert records.mend_rq_list(Task.IMAGES) == []
    assert waiting(redis, Task.IMAGES) == ids[1:]
    assert [record.id for record in claim(records, job, Room(2, 2)).records] == ids[1:3]
    assert waiting(redis, Task.IMAGES) == ids[3:]


@pytest.mark.parametrize("num_jobs", [3, 1100])
def test_rqs_list_is_mended_though_it_has_kept_its_length(
    redis: Redis, records: Records, num_jobs: int
) -> None:
    ids = [submit(redis, image_job()) for _ in range(num_jobs)]
    queue = queue_key(Task.IMAGES)
    redis.lset(queue, 1, "stranger")  # of many only a part is looked at
    redis.lset(queue, num_jobs - 1, ids[0])
    if num_jobs > 3:
        redis.rpush(queue, "another")
    assert "stranger" in records.mend_rq_list(Task.IMAGES)
    assert sorted(rq_list(redis, Task.IMAGES)) == sorted(ids)
    assert records.mend_rq_list(Task.IMAGES) == []
    for job_id in ids:
        records.cancel(job_id)
    assert rq_list(redis, Task.IMAGES) == []


def test_no_script_that_mends_rqs_list_does_more_than_a_part_of_it(
    redis: Redis, records: Records
) -> None:
    for _ in range(1100):
        submit(redis, image_job())
    redis.delete(queue_key(Task.IMAGES))
    before = redis.info("commandstats")
    records.mend_rq_list(Task.IMAGES)
    after = redis.info("commandstats")
    num = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert num["cmdstat_evalsha"] >= 3
    assert num["cmdstat_rpush"] == 1100


def test_nothing_is_left_of_a_job_whose_record_somebody_deleted_while_it_waited(
    redis: Redis, records: Records
) -> None:
    job = image_job(deadline_at=records.now() + 60).model_copy(update={"caller": "a"})
    redis.delete(record_key(submit(redis, job)))
    assert claim(records, job).records == []
    assert redis.keys("*") == [b"rq:queues"]


@pytest.mark.parametrize("outcome", [RESULT, FAILURE])
def test_nothing_beside_a_record_is_kept_longer_than_the_record(
    redis: Redis, outcome: Outcome
) -> None:
    records = Records(redis, result_ttl_s=30.0)
    job_id = start(redis, records, image_job())
    finish(records, job_id, outcome)
    ttls = {as_text(key): redis.ttl(key) for key in redis.keys(f"*{job_id}*")}
    assert len(ttls) == 4  # the record, its events, RQ's entry and its result
    assert set(ttls.values()) <= {29, 30}


def test_jobs_leave_rqs_list_though_somebody_moved_the_others(
    redis: Redis, records: Records
) -> None:
    ids = [submit(redis, job := image_job()) for _ in range(4)]
    open_queue(redis, Task.IMAGES).remove(ids[0])
    redis.rpush(queue_key(Task.IMAGES), "stranger", "another")
    records.cancel(ids[2])
    assert rq_list(redis, Task.IMAGES) == [ids[1], ids[3], "stranger", "another"]
    assert [record.id for record in claim(records, job).records] == [ids[0], ids[1], ids[3]]
    assert rq_list(redis, Task.IMAGES) == ["stranger", "another"]
    assert not redis.exists(record_key("stranger"), record_key("another"))


def test_on_a_full_server_no_job_is_queued_and_those_that_are_there_end(
    redis: Redis, records: Records, memory_is_full: Callable[[], None]
) -> None:
    waiting_id = start(redis, records, job := embeddings_job("a"))
    canceled_id, last_id = submit(redis, embeddings_job("a")), submit(redis, embeddings_job("a"))
    late_id = submit(redis, embeddings_job("a", deadline_at=records.now() - 1))
    memory_is_full()
    with pytest.raises(OutOfMemoryError):
        submit(redis, refused := embeddings_job("a"))
    with pytest.raises(OutOfMemoryError):
        report(records, waiting_id)
    assert not redis.exists(record_key(refused.id), f"rq:job:{refused.id}")
    records.cancel(canceled_id)
    assert records.expire_queued() == 1
    assert records.renew({waiting_id: 1}, LEASE_S) == []
    assert records.release({waiting_id: 1}) == []
    assert records.await_jobs(Task.EMBEDDINGS, 1.0)
    assert len(claim(records, job).records) == 2
    assert len(records.reap_worker("worker", max_losses=1)) == 2
    states = [found(records, each).state for each in (waiting_id, canceled_id, last_id, late_id)]
    assert states == [JobState.FAILED, JobState.CANCELED, JobState.FAILED, JobState.EXPIRED]


def test_rq_sees_a_claimed_job_as_started_by_its_worker(redis: Redis, records: Records) -> None:
    job_id = start(redis, records, embeddings_job("a"))
    entry = Job.fetch(job_id, redis, JSONSerializer)
    assert (entry.get_status(), entry.worker_name) == (JobStatus.STARTED, "worker")
    assert entry.started_at is not None
    assert StartedJobRegistry("triptych-embeddings", redis).get_job_ids() == [job_id]


@pytest.mark.parametrize(
    ("outcome", "status", "result_type", "reason"),
    [
        (RESULT, JobStatus.FINISHED, Result.Type.SUCCESSFUL, None),
        (FAILURE, JobStatus.FAILED, Result.Type.FAILED, "internal_error"),
        (JobState.CANCELED, JobStatus.STOPPED, Result.Type.FAILED, "canceled"),
    ],
)
def test_rq_sees_how_a_job_ended(
    redis: Redis,
    records: Records,
    outcome: Outcome,
    status: JobStatus,
    result_type: Result.Type,
    reason: str | None,
) -> None:
    job_id = start(redis, records, embeddings_job("a"))
    finish(records, job_id, outcome)
    entry = Job.fetch(job_id, redis, JSONSerializer)
    result = entry.latest_result()
    assert result is not None
    assert (entry.get_status(), result.type, result.exc_string) == (status, result_type, reason)
    assert entry.ended_at is not None
    name = "triptych-embeddings"
    is_finished = status is JobStatus.FINISHED
    assert FinishedJobRegistry(name, redis).get_job_ids() == ([job_id] if is_finished else [])
    assert FailedJobRegistry(name, redis).get_job_ids() == ([] if is_finished else [job_id])
    assert StartedJobRegistry(name, redis).get_job_ids() == []


def test_rq_sees_a_released_job_as_queued_again(redis: Redis, records: Records) -> None:
    job_id = start(redis, records, embeddings_job("a"))
    records.release({job_id: 1})
    entry = Job.fetch(job_id, redis, JSONSerializer)
    assert (entry.get_status(), entry.started_at, entry.worker_name) == (
        JobStatus.QUEUED,
        None,
        None,
    )
    assert StartedJobRegistry("triptych-embeddings", redis).get_job_ids() == []
    assert redis.ttl(f"rq:job:{job_id}") == -1


def test_rq_info_counts_what_waits_runs_and_has_ended(
    redis: Redis, redis_url: str, records: Records
) -> None:
    for outcome in (RESULT, RESULT, FAILURE):
        finish(records, start(redis, records, embeddings_job("a")), outcome)
    start(redis, records, embeddings_job("a"))
    for _ in range(4):
        submit(redis, embeddings_job("a"))
    command = [sys.executable, "-m", "rq.cli", "info", "--url", redis_url, "--raw", "--only-queues"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "queue triptych-embeddings 4, 1 executing, 2 finished, 1 failed" in printed
