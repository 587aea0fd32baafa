"""The records on a real server: who may change what, and when."""

import pytest
from redis import Redis

from tests.worker.jobs import classify_job, embeddings_job, image_job
from worker.contract.jobs import (
    EmbeddingsResult,
    Failure,
    FailureCode,
    JobState,
    Task,
)
from worker.contract.records import (
    FINISHED_CHANNEL,
    AnyJob,
    Outcome,
    Records,
    enqueue,
    queue_key,
    record_key,
)

LEASE_S = 15.0
RESULT = EmbeddingsResult(embeddings=("AACAPw==",), num_tokens=3)
FAILURE = Failure(code=FailureCode.INTERNAL, message="it broke")


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis, result_ttl_s=3600.0)


def submit(redis: Redis, records: Records, job: AnyJob) -> str:
    enqueue(redis, job, records)
    return job.id


def start(records: Records, job_id: str) -> int:
    attempt = records.start(job_id, "worker", LEASE_S)
    assert attempt is not None
    return attempt


def state(records: Records, job_id: str) -> JobState:
    record = records.get(job_id)
    assert record is not None
    return record.state


@pytest.mark.parametrize("job", [image_job(), classify_job("YQ==", "Yg=="), embeddings_job("a")])
def test_a_submitted_job_reads_back_as_it_was(redis: Redis, records: Records, job: AnyJob) -> None:
    record = records.get(submit(redis, records, job))
    assert record is not None
    assert record.job == job
    assert (record.state, record.attempt) == (JobState.QUEUED, 0)


def test_a_submit_writes_record_and_entry_in_one_transaction(
    redis: Redis, records: Records
) -> None:
    job = embeddings_job("a")
    commands: list[str] = []
    with redis.monitor() as monitor:  # type: ignore[no-untyped-call]
        enqueue(redis, job, records)
        while "EXEC" not in commands:
            commands.append(monitor.next_command()["command"])
    between = commands[commands.index("MULTI") + 1 : -1]
    assert any(command.startswith(f"HSET {record_key(job.id)} ") for command in between)
    assert f"RPUSH {queue_key(Task.EMBEDDINGS)} {job.id}" in between


def test_an_unknown_job_has_no_record(records: Records) -> None:
    assert records.get("job_none") is None
    assert records.cancel("job_none") is None
    assert records.start("job_none", "worker", LEASE_S) is None


def test_only_one_worker_can_start_a_job(redis: Redis, records: Records) -> None:
    job_id = submit(redis, records, embeddings_job("a"))
    assert records.start(job_id, "first", LEASE_S) == 1
    assert records.start(job_id, "second", LEASE_S) is None


def test_several_jobs_start_in_one_step(redis: Redis, records: Records) -> None:
    jobs = [embeddings_job("a"), embeddings_job("b")]
    for job in jobs:
        submit(redis, records, job)
    taken = records.take([jobs[0].id, "job_none", jobs[1].id], "worker", LEASE_S)
    assert [record and record.job for record in taken] == [jobs[0], None, jobs[1]]


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
    job_id = submit(redis, records, embeddings_job("a"))
    assert records.finish(job_id, start(records, job_id), outcome)
    record = records.get(job_id)
    assert record is not None
    assert (record.state, record.result, record.failure) == (
        final,
        outcome if outcome is RESULT else None,
        outcome if outcome is FAILURE else None,
    )
    assert record.finished_at is not None


@pytest.mark.parametrize("final", [RESULT, FAILURE, JobState.CANCELED, JobState.EXPIRED])
def test_a_final_state_never_changes(redis: Redis, records: Records, final: Outcome) -> None:
    job_id = submit(redis, records, embeddings_job("a"))
    attempt = start(records, job_id)
    records.finish(job_id, attempt, final)
    before = redis.hgetall(record_key(job_id))
    assert not records.finish(job_id, attempt, RESULT)
    assert not records.finish(job_id, attempt, FAILURE)
    assert not records.release(job_id, attempt)
    assert not records.progress(job_id, attempt, 1, 4)
    assert records.start(job_id, "worker", LEASE_S) is None
    records.cancel(job_id)
    records.renew({job_id: attempt}, LEASE_S)
    assert not records.unstick(job_id)
    assert redis.hgetall(record_key(job_id)) == before


def test_a_stale_attempt_can_change_nothing(redis: Redis, records: Records) -> None:
    job_id = submit(redis, records, image_job())
    stale = start(records, job_id)
    records.release(job_id, stale)
    current = start(records, job_id)
    before = redis.hgetall(record_key(job_id))
    assert not records.progress(job_id, stale, 3, 4)
    assert not records.finish(job_id, stale, FAILURE)
    assert not records.release(job_id, stale)
    records.renew({job_id: stale}, 10 * LEASE_S)
    assert redis.hgetall(record_key(job_id)) == before
    assert records.finish(job_id, current, JobState.CANCELED)


def test_every_final_state_wakes_who_waits(redis: Redis, records: Records) -> None:
    with redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(FINISHED_CHANNEL)
        pubsub.get_message(timeout=5.0)
        done, canceled = (submit(redis, records, embeddings_job("a")) for _ in range(2))
        records.finish(done, start(records, done), RESULT)
        records.cancel(canceled)
        messages = [pubsub.get_message(timeout=5.0) for _ in range(2)]
    assert [message and message["data"] for message in messages] == [
        done.encode(),
        canceled.encode(),
    ]


def test_final_records_expire_and_others_do_not(redis: Redis, records: Records) -> None:
    job_id = submit(redis, records, embeddings_job("a"))
    assert redis.ttl(record_key(job_id)) == -1
    records.finish(job_id, start(records, job_id), RESULT)
    assert 3590 < redis.ttl(record_key(job_id)) <= 3600


def test_a_final_record_forgets_the_bytes_of_its_images(redis: Redis, records: Records) -> None:
    job_id = submit(redis, records, classify_job("YQ=="))
    records.finish(job_id, start(records, job_id), FAILURE)
    assert "YQ==" not in str(redis.hgetall(record_key(job_id)))
    assert records.get(job_id) is not None


def test_cancel_ends_a_queued_job_and_takes_it_off_the_queue(
    redis: Redis, records: Records
) -> None:
    job_id = submit(redis, records, image_job())
    record = records.cancel(job_id)
    assert record is not None
    assert record.state is JobState.CANCELED
    assert redis.llen(queue_key(Task.IMAGES)) == 0
    assert not redis.exists(f"rq:job:{job_id}")


def test_cancel_asks_a_running_job_to_stop(redis: Redis, records: Records) -> None:
    job_id = submit(redis, records, image_job())
    start(records, job_id)
    assert not records.is_cancel_requested(job_id)
    record = records.cancel(job_id)
    assert record is not None
    assert (record.state, record.is_cancel_requested) == (JobState.RUNNING, True)
    assert records.is_cancel_requested(job_id)


def test_progress_is_seen_in_the_record(redis: Redis, records: Records) -> None:
    job_id = submit(redis, records, image_job(num_steps=8))
    assert records.progress(job_id, start(records, job_id), 3, 8)
    record = records.get(job_id)
    assert record is not None
    assert (record.step, record.num_steps) == (3, 8)


def test_a_released_job_is_first_in_its_queue_with_its_attempt_kept(
    redis: Redis, records: Records
) -> None:
    released = submit(redis, records, image_job())
    other = submit(redis, records, image_job())
    redis.lrem(queue_key(Task.IMAGES), 1, released)
    assert records.release(released, start(records, released))
    waiting = redis.lrange(queue_key(Task.IMAGES), 0, -1)
    assert waiting == [released.encode(), other.encode()]
    assert records.start(released, "worker", LEASE_S) == 2


def test_a_released_job_that_was_to_be_canceled_is_canceled(redis: Redis, records: Records) -> None:
    job_id = submit(redis, records, image_job())
    attempt = start(records, job_id)
    records.cancel(job_id)
    assert records.release(job_id, attempt)
    assert state(records, job_id) is JobState.CANCELED


def test_a_job_is_overdue_once_its_lease_ran_out(redis: Redis, records: Records) -> None:
    job_id = submit(redis, records, image_job())
    attempt = start(records, job_id)
    now = records.now()
    assert records.overdue(Task.IMAGES, now) == []
    assert records.overdue(Task.IMAGES, now + LEASE_S + 1) == [job_id]
    records.renew({job_id: attempt}, 10 * LEASE_S)
    assert records.overdue(Task.IMAGES, now + LEASE_S + 1) == []


def test_a_queued_job_past_its_deadline_expires_when_its_turn_comes(
    redis: Redis, records: Records
) -> None:
    job_id = submit(redis, records, image_job(deadline_at=records.now() - 1))
    assert records.start(job_id, "worker", LEASE_S) is None
    assert state(records, job_id) is JobState.EXPIRED


def test_a_job_left_between_queue_and_worker_goes_back(redis: Redis, records: Records) -> None:
    job_id = submit(redis, records, image_job())
    key = queue_key(Task.IMAGES)
    redis.lmove(key, f"{key}:intermediate")
    assert records.unstick(job_id)
    assert not records.unstick(job_id)
    assert redis.lrange(key, 0, -1) == [job_id.encode()]
