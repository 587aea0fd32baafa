"""How a job is queued: its record, RQ's entry, and what the one call answers."""

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.serializers import JSONSerializer

from tests.claims import claim_one
from tests.worker.conftest import commands_of
from tests.worker.jobs import classify_job, embeddings_job, image_job, with_fields
from worker.contract.jobs import EmbeddingsJob, JobState, NegativePrompt, Task
from worker.contract.record import AnyJob, Record, as_text, queue_key, queue_name, record_key
from worker.contract.records import Records
from worker.contract.script_prelude import RQ_FAILURE_TTL_S, RQ_RESULT_TTL_S
from worker.contract.submission import (
    Queued,
    Refusal,
    Submission,
    Terms,
    TooDeep,
    enqueue,
    parse_submission,
    submission,
)
from worker.contract.waiting_scripts import RQ_FUNCTION

STEERED_JOB = image_job(seeds=(1, 2)).model_copy(
    update={"negative": NegativePrompt(prompt="red", true_cfg_scale=2.0)}
)


def queued(redis: Redis, records: Records, job: AnyJob) -> Record:
    enqueue(redis, job)
    record = records.get(job.id)
    assert record is not None
    return record


def send(redis: Redis, job: AnyJob, max_depth: int) -> Submission | Refusal:
    call = submission(job, Terms(max_depth=max_depth))
    return parse_submission(redis.register_script(call.script)(args=call.args))


@pytest.mark.parametrize("job", [image_job(), classify_job("YQ==", "Yg=="), embeddings_job("a")])
def test_a_submitted_job_reads_back_as_it_was(redis: Redis, records: Records, job: AnyJob) -> None:
    record = queued(redis, records, job)
    assert record.job == job
    assert (record.state, record.attempt) == (JobState.QUEUED, 0)


@pytest.mark.parametrize(
    ("job", "group", "num_rows"),
    [
        (image_job(seeds=(1, 2, 3)), "flux_shapes/6144", 3),
        (STEERED_JOB, "flux_shapes/6144", 4),
        (with_fields(image_job(), max_sequence_length=16), "flux_shapes/6144/16", 1),
        (classify_job("YQ==", "Yg=="), "vit_shapes", 2),
        (embeddings_job("a", "b"), "f_net_shapes", 2),
    ],
)
def test_a_record_says_which_forwards_it_may_share_and_how_many_places_it_takes(
    redis: Redis, records: Records, job: AnyJob, group: str, num_rows: int
) -> None:
    record = queued(redis, records, job)
    assert (record.group, record.num_rows) == (group, num_rows)


def test_a_submit_is_one_command(redis: Redis) -> None:
    enqueue(redis, embeddings_job("a"))  # the script is known to the server from here on
    sent = commands_of(redis, lambda: enqueue(redis, embeddings_job("a")))
    assert [command.split()[0] for command in sent] == ["EVALSHA"]


def test_a_submit_says_how_many_jobs_stand_before_it(redis: Redis) -> None:
    replies = [send(redis, embeddings_job("a"), 5) for _ in range(3)]
    assert replies == [Queued(0), Queued(1), Queued(2)]


def test_a_submit_to_a_full_queue_changes_nothing_and_says_how_old_the_oldest_is(
    redis: Redis,
) -> None:
    first, second = embeddings_job("a"), embeddings_job("a")
    enqueue(redis, first)
    assert send(redis, second, 1) == TooDeep(1, 1, first.created_at)
    assert redis.lrange(queue_key(first.task), 0, -1) == [first.id.encode()]
    assert not redis.exists(record_key(second.id), f"rq:job:{second.id}")


def job_of(caller: str) -> EmbeddingsJob:
    return embeddings_job("a").model_copy(update={"caller": caller})


def num_accepted(redis: Redis, caller: str, num_jobs: int, max_depth: int) -> int:
    answers = [send(redis, job_of(caller), max_depth) for _ in range(num_jobs)]
    return sum(isinstance(answer, Queued) for answer in answers)


def test_a_full_queue_takes_a_caller_that_has_less_than_its_share(redis: Redis) -> None:
    assert num_accepted(redis, "hog", 12, max_depth=8) == 8
    assert num_accepted(redis, "guest", 6, max_depth=8) == 4  # half of eight
    assert num_accepted(redis, "another", 6, max_depth=8) == 3  # a third, and what there is of one
    assert num_accepted(redis, "hog", 1, max_depth=8) == 0


def test_four_times_as_many_wait_at_most_however_many_callers_come(redis: Redis) -> None:
    assert sum(num_accepted(redis, f"caller {i}", 1, max_depth=2) for i in range(20)) == 8


def test_a_caller_whose_jobs_were_taken_may_send_others(redis: Redis, records: Records) -> None:
    assert num_accepted(redis, "hog", 3, max_depth=2) == 2
    assert claim_one(records, Task.EMBEDDINGS) is not None
    assert num_accepted(redis, "hog", 2, max_depth=2) == 1
    records.cancel(as_text(redis.lrange(queue_key(Task.EMBEDDINGS), 0, 0)[0]))
    assert num_accepted(redis, "hog", 2, max_depth=2) == 1


def test_a_submit_that_is_sent_again_queues_nothing_twice(redis: Redis) -> None:
    job = embeddings_job("a")
    assert [send(redis, job, 1), send(redis, job, 1)] == [Queued(0), Queued(0)]
    assert redis.llen(queue_key(Task.EMBEDDINGS)) == 1


def test_rqs_entry_is_the_one_that_rq_itself_would_write(redis: Redis) -> None:
    job = embeddings_job("a")
    queue = Queue(queue_name(job.task), connection=redis, serializer=JSONSerializer)
    queue.enqueue_call(
        RQ_FUNCTION,
        args=(job.id,),
        job_id=job.id,
        timeout=-1,
        result_ttl=RQ_RESULT_TTL_S,
        failure_ttl=RQ_FAILURE_TTL_S,
        description=f"{job.task} {job.id}",
    )
    by_rq = Job.fetch(job.id, redis, JSONSerializer).to_dict()
    redis.flushall()
    enqueue(redis, job)
    entry = Job.fetch(job.id, redis, JSONSerializer)
    moments = {"created_at", "enqueued_at"}
    written = entry.to_dict()
    assert written.keys() == by_rq.keys()
    assert {name: written[name] for name in written.keys() - moments} == {
        name: by_rq[name] for name in by_rq.keys() - moments
    }
    assert entry.get_status() is JobStatus.QUEUED
    assert entry.created_at is not None
    assert entry.created_at.timestamp() == pytest.approx(job.created_at, abs=1e-5)
    assert Queue.all(connection=redis) == [queue]
    assert queue.job_ids == [job.id]
