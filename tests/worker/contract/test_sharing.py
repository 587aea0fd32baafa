"""Equal jobs share one run, whoever leaves it and however it ends; kept results answer at once."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest
from redis import Redis
from rq.registry import FinishedJobRegistry

from tests.cards import card_of, status_of
from tests.worker.jobs import classify_job, embeddings_job, image_job
from worker.contract import workers
from worker.contract.events import events_key
from worker.contract.jobs import (
    ClassifyJob,
    ClassifyResult,
    EmbeddingsResult,
    Failure,
    FailureCode,
    Image,
    ImageResult,
    JobState,
    Task,
)
from worker.contract.record import AnyJob, Outcome, Record, as_text, record_key
from worker.contract.record_scripts import POSITION
from worker.contract.records import (
    FINISHED_CHANNEL,
    Finished,
    Records,
    Room,
    StepReport,
    Verdict,
)
from worker.contract.script_prelude import DEADLINES_KEY
from worker.contract.sharing_script import RESULTS_BYTES, RESULTS_KEY
from worker.contract.submission import (
    Answered,
    Joined,
    Queued,
    Refusal,
    Reuse,
    ScriptCall,
    Submission,
    Terms,
    TooDeep,
    enqueue,
    parse_submission,
    submission,
    withdrawal,
)
from worker.contract.workers import ModelState, ServedModel, WorkerState
from worker.rq_entries import open_queue

WORKER = "worker"
DIGEST = "5e" * 32
EXPIRIES_KEY = "triptych:results:expiries"
REUSE = Reuse("f1" * 32, DIGEST, reads_cache=True, joins_runs=True)
OTHER_REUSE = replace(REUSE, fingerprint="f2" * 32)
RESULT = EmbeddingsResult(embeddings=("AACAPw==",), num_tokens=3)
LABELS = ClassifyResult(predictions=())
PAINTED = ImageResult(
    images=(Image(file_name="a-1-0.png", seed=1, width=8, height=8, num_bytes=9),),
    num_text_tokens=1,
    is_prompt_truncated=False,
    num_patches=1,
)
FAILURE = Failure(code=FailureCode.INTERNAL, message="it broke")
ENDS: list[Outcome] = [RESULT, FAILURE]
LATE = 1.0  # Unix seconds: long ago
LATER = 9e9


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis, result_ttl_s=3600.0)


@pytest.fixture
def worker(redis: Redis) -> None:
    """A worker that says that it serves what the fingerprints were made for."""
    served = ServedModel(name="f_net_shapes", state=ModelState.READY, results_digest=DIGEST)
    status = status_of(Task.EMBEDDINGS, WorkerState.IDLE, (served,), WORKER)
    workers.write(redis, status, [card_of("f_net_shapes", Task.EMBEDDINGS)])


def run_script(redis: Redis, call: ScriptCall) -> object:
    reply: object = redis.register_script(call.script)(args=call.args)
    return reply


def send(
    redis: Redis,
    job: AnyJob,
    reuse: Reuse | None = REUSE,
    max_depth: int | None = None,
    is_awaited: bool = True,
    keep_s: int | None = None,
    ttl_s: int = 3600,
) -> Submission | Refusal:
    terms = Terms(
        max_depth=max_depth, reuse=reuse, is_awaited=is_awaited, keep_s=keep_s, ttl_s=ttl_s
    )
    reply = run_script(redis, submission(job, terms))
    return parse_submission(cast(Sequence[int | bytes], reply))


def embedding(deadline_at: float | None = LATER, **fields: object) -> AnyJob:
    return embeddings_job("a", deadline_at=deadline_at).model_copy(update=fields)


def submit(redis: Redis, *jobs: AnyJob, reuse: Reuse | None = REUSE) -> list[str]:
    for job in jobs:
        send(redis, job, reuse)
    return [job.id for job in jobs]


def shared(redis: Redis, count: int = 2) -> list[str]:
    """So many equal jobs; the first is the one that is queued."""
    return submit(redis, *(embedding() for _ in range(count)))


def claim(records: Records, task: Task = Task.EMBEDDINGS) -> list[Record]:
    models = ["f_net_shapes", "vit_shapes", "flux_shapes"]
    return records.claim(task, WORKER, 15.0, models, Room(99, 99)).records


def finish(records: Records, job_id: str, outcome: Outcome = RESULT, attempt: int = 1) -> bool:
    [is_current] = records.finish([Finished(job_id, attempt, outcome)])
    return is_current


def run_once(redis: Redis, records: Records, job: AnyJob, outcome: Outcome = RESULT) -> None:
    send(redis, job)
    [record] = claim(records, job.task)
    assert finish(records, record.id, outcome)


def found(records: Records, job_id: str) -> Record:
    record = records.get(job_id)
    assert record is not None
    return record


def states(records: Records, job_ids: Sequence[str]) -> list[JobState]:
    return [found(records, job_id).state for job_id in job_ids]


def events(redis: Redis, job_id: str) -> list[str]:
    entries = cast(list[tuple[bytes, dict[bytes, bytes]]], redis.xrange(events_key(job_id)))
    return [as_text(fields[b"type"]) for _, fields in entries]


def leftovers(redis: Redis) -> set[str]:
    """The keys of runs that are shared and of jobs that wait or run: all but those that expire."""
    keys = {as_text(key) for key in redis.scan_iter("triptych:*")} - {"triptych:workers"}
    return {key for key in keys if redis.ttl(key) == -1}


# one run


def test_equal_jobs_share_one_run_and_have_the_same_end(redis: Redis, records: Records) -> None:
    first, second, third = shared(redis, 3)
    assert open_queue(redis, Task.EMBEDDINGS).job_ids == [first]
    [record] = claim(records)
    assert record.id == first
    assert finish(records, first)
    ends = [found(records, job_id) for job_id in (first, second, third)]
    assert {(end.state, end.result, end.attempt, end.worker) for end in ends} == {
        (JobState.SUCCEEDED, RESULT, 1, WORKER)
    }
    assert [end.id for end in ends] == [first, second, third]
    assert leftovers(redis) == set()


def test_a_sharer_has_the_events_of_the_run(redis: Redis, records: Records) -> None:
    first, second = submit(redis, image_job(), image_job())
    claim(records, Task.IMAGES)
    records.report([StepReport(first, 1, 1, 4, 2.5)])
    finish(records, first, FAILURE)
    assert events(redis, second) == ["queued", "started", "step", "finished"]
    assert events(redis, second) == events(redis, first)
    assert (found(records, second).step, found(records, second).num_steps) == (1, 4)


def test_a_job_that_joins_a_run_under_way_is_as_far_as_that(redis: Redis, records: Records) -> None:
    first, second = image_job(), image_job()
    send(redis, first)
    claim(records, Task.IMAGES)
    records.report([StepReport(first.id, 1, 2, 4, None)])
    assert send(redis, second) == Joined()
    record = found(records, second.id)
    assert (record.state, record.attempt, record.step) == (JobState.RUNNING, 1, 2)
    assert record.started_at == found(records, first.id).started_at
    assert events(redis, second.id) == ["queued", "started", "step"]


def test_no_job_started_before_it_was_created(redis: Redis, records: Records) -> None:
    submit(redis, embedding())
    claim(records)
    send(redis, joined := embedding(created_at=time.time() + 5))
    assert found(records, joined.id).started_at == joined.created_at


def test_everyone_who_shares_a_run_is_woken(redis: Redis, records: Records) -> None:
    job_ids = shared(redis)
    claim(records)
    with redis.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(FINISHED_CHANNEL)
        pubsub.get_message(timeout=1)
        finish(records, job_ids[0])
        heard = [pubsub.get_message(timeout=1) for _ in job_ids]
    assert {as_text(message["data"]) for message in heard if message} == set(job_ids)


@pytest.mark.parametrize(
    "reuse", [None, OTHER_REUSE, replace(REUSE, joins_runs=False)], ids=["none", "other", "off"]
)
def test_other_jobs_have_runs_of_their_own(
    redis: Redis, records: Records, reuse: Reuse | None
) -> None:
    assert send(redis, embedding(), REUSE) == Queued(0)
    assert send(redis, embedding(), reuse) == Queued(1)
    assert len(claim(records)) == 2


def test_who_shares_a_run_counts_among_those_who_wait(redis: Redis, records: Records) -> None:
    first, second = shared(redis)
    claim(records)
    assert isinstance(send(redis, embedding(), max_depth=1), TooDeep)
    records.cancel(second)
    assert send(redis, third := embedding(), max_depth=1) == Joined()
    finish(records, first)
    assert found(records, third.id).state is JobState.SUCCEEDED
    assert leftovers(redis) == set()


def test_a_caller_that_shares_runs_leaves_the_queue_to_others(redis: Redis) -> None:
    shared(redis, 4)
    assert isinstance(send(redis, embedding(), max_depth=4), TooDeep)
    assert isinstance(send(redis, embedding(caller="b"), OTHER_REUSE, max_depth=4), Queued)


def test_a_submit_that_is_sent_again_joins_once(redis: Redis) -> None:
    shared(redis, 1)
    job = embedding()
    assert [send(redis, job), send(redis, job)] == [Joined(), Joined()]
    assert redis.scard(f"triptych:sharers:{shared(redis, 1)[0]}") == 0


def test_so_many_share_a_run_and_the_next_begins_another(redis: Redis, records: Records) -> None:
    job_ids = shared(redis, 1 + 256 + 1)
    assert [record.id for record in claim(records)] == [job_ids[0], job_ids[-1]]
    finish(records, job_ids[0])
    assert states(records, job_ids[:-1]) == [JobState.SUCCEEDED] * 257
    assert send(redis, embedding(), replace(REUSE, reads_cache=False)) == Joined()


@pytest.mark.parametrize(("num_texts", "num_sharers"), [(2, 128), (100, 2), (257, 0)])
def test_the_more_rows_a_result_has_the_fewer_share_it(
    redis: Redis, num_texts: int, num_sharers: int
) -> None:
    jobs = [
        embedding().model_copy(update={"texts": ("a",) * num_texts}) for _ in range(num_sharers + 2)
    ]
    answers = [send(redis, job) for job in jobs]
    assert answers == [Queued(0), *[Joined()] * num_sharers, Queued(1)]


def test_images_are_files_that_as_many_share_however_many_they_are(redis: Redis) -> None:
    jobs = [image_job(seeds=(1, 2, 3)) for _ in range(258)]
    answers = [send(redis, job) for job in jobs]
    assert answers == [Queued(0), *[Joined()] * 256, Queued(1)]


def test_a_failure_is_everyones(redis: Redis, records: Records) -> None:
    job_ids = shared(redis)
    claim(records)
    finish(records, job_ids[0], FAILURE)
    assert [found(records, job_id).failure for job_id in job_ids] == [FAILURE] * 2
    assert send(redis, embedding()) == Queued(0)


def test_the_inputs_of_a_shared_run_are_kept_once(redis: Redis, records: Records) -> None:
    first, second = submit(redis, classify_job("YQ=="), classify_job("YQ=="))
    assert not redis.hexists(record_key(second), "inputs")
    [record] = claim(records, Task.CLASSIFY)
    assert isinstance(record.job, ClassifyJob)
    assert record.job.images == ("YQ==",)
    finish(records, first, LABELS)
    assert not redis.hexists(record_key(first), "inputs")


# a worker that is lost


def test_everyone_waits_again_when_the_worker_is_lost(redis: Redis, records: Records) -> None:
    first, second = shared(redis)
    claim(records)
    records.reap_worker(WORKER, max_losses=3)
    assert states(records, [first, second]) == [JobState.QUEUED] * 2
    assert events(redis, second) == ["queued", "started", "queued"]
    assert found(records, second).past_attempts == found(records, first).past_attempts != ()
    [again] = records.claim(Task.EMBEDDINGS, "survivor", 15.0, ["f_net_shapes"], Room(9, 9)).records
    assert (again.id, again.attempt) == (first, 2)
    assert finish(records, first, attempt=2)
    assert states(records, [first, second]) == [JobState.SUCCEEDED] * 2


def test_a_run_that_is_given_up_fails_for_everyone(redis: Redis, records: Records) -> None:
    job_ids = shared(redis)
    claim(records)
    records.reap_worker(WORKER, max_losses=1)
    assert {found(records, job_id).failure for job_id in job_ids} == {
        found(records, job_ids[0]).failure
    }
    assert states(records, job_ids) == [JobState.FAILED] * 2
    assert leftovers(redis) == set()


def test_a_run_that_is_given_back_is_given_back_for_everyone(
    redis: Redis, records: Records
) -> None:
    job_ids = shared(redis)
    claim(records)
    assert records.release({job_ids[0]: 1}) == []
    assert states(records, job_ids) == [JobState.QUEUED] * 2


# who leaves


def test_a_sharer_is_canceled_alone(redis: Redis, records: Records) -> None:
    first, second, third = shared(redis, 3)
    records.cancel(second)
    claim(records)
    records.cancel(third)
    assert states(records, [first, second, third]) == [
        JobState.RUNNING,
        *(JobState.CANCELED,) * 2,
    ]
    assert records.report([StepReport(first, 1, 1, 1, None)]) == [Verdict.GO_ON]
    assert finish(records, first)
    assert states(records, [first, second, third]) == [
        JobState.SUCCEEDED,
        *(JobState.CANCELED,) * 2,
    ]
    assert events(redis, second) == ["queued", "finished"]


@pytest.mark.parametrize("is_running", [False, True])
def test_the_first_is_canceled_for_its_own_client_and_the_run_goes_on(
    redis: Redis, records: Records, is_running: bool
) -> None:
    first, second = shared(redis)
    if is_running:
        claim(records)
    canceled = records.cancel(first)
    assert canceled is not None
    assert (canceled.state, canceled.result) == (JobState.CANCELED, None)
    assert events(redis, first)[-1] == "finished"
    seen, canceled_at = len(events(redis, first)), canceled.finished_at
    if not is_running:
        assert [record.id for record in claim(records)] == [first]
    assert finish(records, first)
    assert states(records, [first, second]) == [JobState.CANCELED, JobState.SUCCEEDED]
    assert len(events(redis, first)) == seen
    assert found(records, first).finished_at == canceled_at
    assert leftovers(redis) == set()


def test_canceling_twice_changes_nothing(redis: Redis, records: Records) -> None:
    first, second = shared(redis)
    assert records.cancel(first) == records.cancel(first)
    assert records.cancel(second) == records.cancel(second)
    assert claim(records) == []


def test_a_run_of_nobody_leaves_the_queue(redis: Redis, records: Records) -> None:
    job_ids = shared(redis)
    for job_id in job_ids:
        records.cancel(job_id)
    assert claim(records) == []
    assert states(records, job_ids) == [JobState.CANCELED] * 2
    assert leftovers(redis) == set()
    assert open_queue(redis, Task.EMBEDDINGS).job_ids == []


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (1, 0, 2)])
def test_a_run_stops_when_the_last_has_gone(
    redis: Redis, records: Records, order: Sequence[int]
) -> None:
    job_ids = shared(redis, 3)
    claim(records)
    verdicts = []
    for step, index in enumerate(order):
        records.cancel(job_ids[index])
        verdicts += records.report([StepReport(job_ids[0], 1, step, 9, None)])
    assert verdicts == [Verdict.GO_ON, Verdict.GO_ON, Verdict.CANCEL]
    assert finish(records, job_ids[0], JobState.CANCELED)
    assert states(records, job_ids) == [JobState.CANCELED] * 3
    assert leftovers(redis) == set()


def test_nobody_joins_a_run_that_was_asked_to_stop(redis: Redis, records: Records) -> None:
    [first] = shared(redis, 1)
    claim(records)
    records.cancel(first)
    [second] = shared(redis, 1)
    finish(records, first, JobState.CANCELED)
    assert states(records, [first, second]) == [JobState.CANCELED, JobState.QUEUED]
    assert send(redis, embedding()) == Joined()


def test_a_run_whose_first_client_has_left_can_be_joined(redis: Redis, records: Records) -> None:
    first, second = shared(redis)
    records.cancel(first)
    third = embedding()
    assert send(redis, third) == Joined()
    records.cancel(second)
    claim(records)
    finish(records, first)
    assert found(records, third.id).result == RESULT


def test_a_run_whose_first_client_has_left_survives_its_worker(
    redis: Redis, records: Records
) -> None:
    first, second = shared(redis)
    claim(records)
    records.cancel(first)
    records.reap_worker(WORKER, max_losses=3)
    assert states(records, [first, second]) == [JobState.CANCELED, JobState.QUEUED]
    [again] = records.claim(Task.EMBEDDINGS, "survivor", 15.0, ["f_net_shapes"], Room(9, 9)).records
    finish(records, again.id, attempt=2)
    assert states(records, [first, second]) == [JobState.CANCELED, JobState.SUCCEEDED]


@pytest.mark.parametrize("outcome", [RESULT, FAILURE, JobState.EXPIRED])
def test_the_end_of_a_run_is_repeated_though_its_first_client_has_left(
    redis: Redis, records: Records, outcome: Outcome
) -> None:
    first, _ = shared(redis)
    claim(records)
    records.cancel(first)
    assert [finish(records, first, outcome), finish(records, first, outcome)] == [True, True]
    assert not finish(records, first, outcome, attempt=2)


# deadlines


def test_a_sharer_whose_time_is_over_expires_alone(redis: Redis, records: Records) -> None:
    late, in_time = embedding(deadline_at=LATE), embedding()
    send(redis, in_time)
    send(redis, late)
    assert records.expire_queued() == 1
    claim(records)
    finish(records, in_time.id)
    assert states(records, [in_time.id, late.id]) == [JobState.SUCCEEDED, JobState.EXPIRED]
    assert events(redis, late.id) == ["queued", "finished"]


def end_by_the_reaper(records: Records, job: AnyJob) -> None:  # noqa: ARG001
    assert records.expire_queued() == 1


def end_by_a_claim(records: Records, job: AnyJob) -> None:
    claim(records, job.task)


def make_late(redis: Redis, job_id: str) -> None:
    """Have the deadline of a job come; one that was late before would not have been joined."""
    redis.hset(record_key(job_id), "deadline_at", LATE)
    redis.zadd(DEADLINES_KEY, {job_id: LATE})


def lasting(seconds: float) -> AnyJob:
    """A job that comes now and may take so long."""
    now = time.time()
    return embedding(now + seconds, created_at=now)


@pytest.mark.parametrize(
    ("leader_s", "newcomer_s", "expected"),
    [(3600, 3600, Joined()), (2000, 3600, Joined()), (1000, 3600, Queued(1)), (9, 1, Joined())],
)
def test_a_run_is_joined_if_it_may_last_for_half_of_the_newcomers_time(
    redis: Redis, leader_s: float, newcomer_s: float, expected: Joined | Queued
) -> None:
    send(redis, lasting(leader_s))
    assert send(redis, lasting(newcomer_s)) == expected
    assert send(redis, lasting(newcomer_s)) == Joined(), "of the first, or of its new run"


def test_a_job_without_a_deadline_joins_only_such(redis: Redis) -> None:
    timeless = embedding(deadline_at=None)
    send(redis, embedding())
    assert send(redis, timeless) == Queued(1)
    assert send(redis, embedding(deadline_at=None)) == Joined()
    assert send(redis, embedding()) == Joined()


def test_both_runs_of_equal_jobs_end_by_themselves(redis: Redis, records: Records) -> None:
    jobs = [lasting(10), lasting(3600), lasting(3600)]
    submit(redis, *jobs)
    assert [record.id for record in claim(records)] == [jobs[0].id, jobs[1].id]
    finish(records, jobs[0].id, JobState.EXPIRED)
    finish(records, jobs[1].id)
    assert [found(records, job.id).state.value for job in jobs] == ["expired", *["succeeded"] * 2]
    assert leftovers(redis) == set()


@pytest.mark.parametrize("end", [end_by_the_reaper, end_by_a_claim])
def test_who_shares_a_run_that_expires_in_the_queue_runs_by_itself(
    redis: Redis, records: Records, end: object
) -> None:
    late, second, third = (
        classify_job("YQ==").model_copy(update={"deadline_at": at}) for at in (8e9, LATER, 8e9)
    )
    submit(redis, late, second, third)
    assert redis.scard(f"triptych:sharers:{late.id}") == 2
    make_late(redis, late.id)
    assert callable(end)
    end(records, late)
    assert found(records, late.id).state is JobState.EXPIRED
    records.reap_worker(WORKER, max_losses=3)  # where the claim took it at once
    [record] = records.claim(Task.CLASSIFY, "w", 15.0, ["vit_shapes"], Room(9, 9)).records
    assert isinstance(record.job, ClassifyJob)
    assert (record.id, record.job.images) == (second.id, ("YQ==",))
    finish(records, second.id, LABELS, attempt=record.attempt)
    assert states(records, [second.id, third.id]) == [JobState.SUCCEEDED] * 2
    assert leftovers(redis) == set()


def test_who_shares_a_run_that_expires_under_way_waits_again(
    redis: Redis, records: Records
) -> None:
    late, second = embedding(), embedding()
    submit(redis, late, second)
    claim(records)
    make_late(redis, late.id)
    finish(records, late.id, JobState.EXPIRED)
    assert states(records, [late.id, second.id]) == [JobState.EXPIRED, JobState.QUEUED]
    assert events(redis, second.id) == ["queued", "started", "queued"]
    queue = open_queue(redis, Task.EMBEDDINGS)
    assert queue.job_ids == [second.id]
    assert [job.get_status() for job in queue.jobs] == ["queued"]
    assert send(redis, embedding()) == Joined()
    [record] = claim(records)
    assert finish(records, second.id, attempt=record.attempt)


# whose turn it is


def test_a_job_in_a_hurry_moves_the_run_forward_that_it_joins(
    redis: Redis, records: Records
) -> None:
    slow = embedding(priority="low", caller="a")
    between = [embedding(caller="b") for _ in range(3)]
    send(redis, slow)
    submit(redis, *between, reuse=None)
    assert send(redis, embedding(priority="high", caller="c")) == Joined()
    assert claim(records)[0].id == slow.id
    assert records.claim(Task.EMBEDDINGS, "w", 15.0, [], Room(9, 9)).others == []


def test_a_sharer_stands_where_its_run_stands(redis: Redis) -> None:
    submit(redis, *(embedding() for _ in range(3)), reuse=None)
    job_ids = shared(redis, 2)
    places = [run_script(redis, ScriptCall(POSITION, [job_id])) for job_id in job_ids]
    assert places == [3, 3]


def test_a_caller_with_many_jobs_does_not_hold_up_who_joins_the_last(
    redis: Redis, records: Records
) -> None:
    many = [embedding(caller="a") for _ in range(6)]
    submit(redis, *many, reuse=None)
    send(redis, last := embedding(caller="a"))
    send(redis, joined := embedding(caller="b"))
    assert found(records, joined.id).state is JobState.QUEUED
    order = [record.id for record in claim(records)]
    assert order.index(last.id) <= 1
    assert len(order) == 7


# any order


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_each_job_ends_once_and_nothing_is_left(
    redis: Redis, records: Records, seed: int
) -> None:
    rng = random.Random(seed)
    reuses = [replace(REUSE, fingerprint=f"{n:064x}", reads_cache=False) for n in range(3)]
    job_ids: list[str] = []
    running: dict[str, int] = {}

    def step() -> None:
        action = rng.randrange(9)
        if action <= 2:
            job = embedding(rng.choice([LATE, LATER, LATER]), caller=rng.choice("ab"))
            send(redis, job, rng.choice(reuses))
            job_ids.append(job.id)
        elif action == 3:
            room = Room(rng.randrange(3), 9)
            claimed = records.claim(Task.EMBEDDINGS, WORKER, 15.0, ["f_net_shapes"], room)
            running.update({record.id: record.attempt for record in claimed.records})
        elif action == 4 and job_ids:
            records.cancel(rng.choice(job_ids))
        elif action == 5 and running:
            job_id, attempt = running.popitem()
            wants_stop = records.report([StepReport(job_id, attempt, 1, 1, None)])[0]
            outcome = JobState.CANCELED if wants_stop is Verdict.CANCEL else rng.choice(ENDS)
            assert finish(records, job_id, outcome, attempt)
        elif action == 6 and running and rng.random() < 0.3:
            records.reap_worker(WORKER, max_losses=9)
            running.clear()
            redis.delete(f"triptych:claim:{WORKER}")  # the next one has its name
        elif action == 7:
            records.expire_queued()
        elif action == 8 and job_ids and rng.random() < 0.5:
            job_id = rng.choice(job_ids)
            if not found(records, job_id).state.is_final:
                make_late(redis, job_id)

    for _ in range(120):
        step()
    for job_id, attempt in running.items():
        finish(records, job_id, RESULT, attempt)
    records.expire_queued()
    while claimed := claim(records):
        records.finish([Finished(record.id, record.attempt, RESULT) for record in claimed])
    assert all(found(records, job_id).state.is_final for job_id in job_ids)
    assert {events(redis, job_id).count("finished") for job_id in job_ids} == {1}
    assert leftovers(redis) == set()
    assert open_queue(redis, Task.EMBEDDINGS).job_ids == []


# kept results


@pytest.mark.usefixtures("worker")
def test_an_equal_job_is_answered_at_once(redis: Redis, records: Records) -> None:
    run_once(redis, records, embedding())
    job = embedding()
    answered = send(redis, job, max_depth=0)
    assert isinstance(answered, Answered)
    assert answered.record == found(records, job.id)
    assert (answered.record.state, answered.record.result) == (JobState.SUCCEEDED, RESULT)
    assert leftovers(redis) == set()


@pytest.mark.parametrize(
    ("job", "result", "ttl_s"),
    [
        (embeddings_job("a"), RESULT, 60),
        (classify_job("YQ=="), LABELS, 60),
        (image_job(), PAINTED, 600),
    ],
    ids=["embeddings", "classify", "images"],
)
@pytest.mark.usefixtures("worker")
def test_a_job_that_is_answered_at_once_leaves_little_and_not_for_long(
    redis: Redis, records: Records, job: AnyJob, result: Outcome, ttl_s: int
) -> None:
    run_once(redis, records, job, result)
    again = job.model_copy(update={"id": "again"})
    num_keys = redis.dbsize()
    assert isinstance(send(redis, again), Answered)
    assert redis.dbsize() == num_keys + 1, "a record, and no stream of events"
    assert ttl_s - 5 < redis.ttl(record_key("again")) <= ttl_s
    assert found(records, "again").keep_s == ttl_s


@pytest.mark.parametrize(
    ("job", "result"),
    [(embeddings_job("a"), RESULT), (image_job(), PAINTED)],
    ids=["text", "image"],
)
@pytest.mark.usefixtures("worker")
def test_an_answer_that_its_client_comes_back_for_is_kept_like_others(
    redis: Redis, records: Records, job: AnyJob, result: Outcome
) -> None:
    run_once(redis, records, job, result)
    again = job.model_copy(update={"id": "again"})
    assert isinstance(send(redis, again, is_awaited=False), Answered)
    assert 3595 < redis.ttl(record_key("again")) <= 3600
    assert found(records, "again").keep_s is None


@pytest.mark.usefixtures("worker")
def test_no_answer_is_kept_longer_than_other_records(redis: Redis, records: Records) -> None:
    run_once(redis, records, image_job(), PAINTED)
    answered = send(redis, image_job(), ttl_s=90)
    assert isinstance(answered, Answered)
    assert answered.record.keep_s == 90


@pytest.mark.usefixtures("worker")
def test_a_submit_that_is_sent_again_is_answered_again(redis: Redis, records: Records) -> None:
    run_once(redis, records, embedding())
    job = embedding()
    first = send(redis, job)
    assert isinstance(first, Answered)
    assert send(redis, job) == first


@pytest.mark.usefixtures("worker")
def test_who_wants_no_kept_result_gets_none(redis: Redis, records: Records) -> None:
    run_once(redis, records, embedding())
    assert isinstance(send(redis, embedding(), replace(REUSE, reads_cache=False)), Queued)
    assert isinstance(send(redis, embedding(), OTHER_REUSE), Queued)


@pytest.mark.usefixtures("worker")
def test_a_failure_is_not_kept(redis: Redis, records: Records) -> None:
    run_once(redis, records, embedding(), FAILURE)
    assert not redis.exists(RESULTS_KEY)


@pytest.mark.usefixtures("worker")
def test_a_result_is_kept_though_the_first_client_has_left(redis: Redis, records: Records) -> None:
    first, _ = shared(redis)
    claim(records)
    records.cancel(first)
    finish(records, first)
    assert isinstance(send(redis, embedding()), Answered)


@pytest.mark.usefixtures("worker")
def test_the_result_of_a_worker_that_serves_another_model_of_that_name_is_not_kept(
    redis: Redis, records: Records
) -> None:
    send(redis, job := embedding(), replace(REUSE, results_digest="0d" * 32))
    claim(records)
    finish(records, job.id)
    assert not redis.exists(RESULTS_KEY)


def test_the_result_of_a_worker_that_says_nothing_is_not_kept(
    redis: Redis, records: Records
) -> None:
    run_once(redis, records, embedding())
    assert not redis.exists(RESULTS_KEY)


@pytest.mark.usefixtures("worker")
def test_without_room_nothing_is_kept(redis: Redis) -> None:
    run_once(redis, Records(redis, 3600.0, result_cache_bytes=0), embedding())
    assert not redis.exists(RESULTS_KEY)


@pytest.mark.usefixtures("worker")
def test_a_job_without_a_fingerprint_keeps_nothing(redis: Redis, records: Records) -> None:
    send(redis, job := embedding(), reuse=None)
    claim(records)
    finish(records, job.id)
    assert not redis.exists(RESULTS_KEY)


def keep(redis: Redis, records: Records, number: int, num_bytes: int = 100) -> Reuse:
    """Have the result of one more job kept."""
    reuse = replace(REUSE, fingerprint=f"{number:064x}")
    send(redis, job := embedding(), reuse)
    claim(records)
    finish(records, job.id, EmbeddingsResult(embeddings=("A" * num_bytes,), num_tokens=1))
    return reuse


def is_kept(redis: Redis, reuse: Reuse) -> bool:
    return bool(redis.hexists(RESULTS_KEY, reuse.fingerprint))


@pytest.mark.usefixtures("worker")
def test_the_result_that_was_used_longest_ago_goes_first(redis: Redis) -> None:
    records = Records(redis, 3600.0, result_cache_bytes=9 * 600)
    kept = [keep(redis, records, number) for number in range(9)]
    send(redis, embedding(), kept[0])
    kept.append(keep(redis, records, 9))
    assert [is_kept(redis, reuse) for reuse in kept[:3]] == [True, False, True]
    assert is_kept(redis, kept[-1])


@pytest.mark.usefixtures("worker")
def test_the_bytes_of_all_keys_stay_within_what_is_allowed(redis: Redis) -> None:
    max_bytes = 100_000
    records = Records(redis, 3600.0, result_cache_bytes=max_bytes)
    rng = random.Random(1)
    for number in range(400):
        keep(redis, records, number, rng.choice([10, 300, 5000]))
    fields = redis.hgetall(RESULTS_KEY)
    counted = int(fields.pop(RESULTS_BYTES.encode()))
    assert counted == sum(len(text) + 400 for text in fields.values())
    assert 0.9 * max_bytes < counted <= max_bytes
    assert redis.zcard(EXPIRIES_KEY) == len(fields)
    taken = sum(redis.memory_usage(key, samples=0) or 0 for key in (RESULTS_KEY, EXPIRIES_KEY))
    assert taken <= max_bytes


@pytest.mark.usefixtures("worker")
def test_a_result_that_would_push_too_many_out_is_not_kept(redis: Redis) -> None:
    records = Records(redis, 3600.0, result_cache_bytes=16_000)
    assert not is_kept(redis, keep(redis, records, 0, 1_900))
    assert is_kept(redis, keep(redis, records, 1, 1_000))


@pytest.mark.usefixtures("worker")
def test_a_result_that_has_expired_is_not_read_and_goes_with_the_next_that_is_kept(
    redis: Redis, records: Records
) -> None:
    old = keep(redis, records, 0)
    redis.zadd(EXPIRIES_KEY, {old.fingerprint: LATE})
    assert send(redis, embedding(), old) == Queued(0)
    keep(redis, records, 1)
    assert not is_kept(redis, old)


@pytest.mark.usefixtures("worker")
def test_the_cache_is_gone_a_ttl_after_its_last_use(redis: Redis, records: Records) -> None:
    reuse = keep(redis, records, 0)
    redis.expire(RESULTS_KEY, 5)
    redis.expire(EXPIRIES_KEY, 5)
    assert isinstance(send(redis, embedding(), reuse), Answered)
    assert 3600 - 5 < redis.ttl(RESULTS_KEY) <= 3600
    assert 3600 - 5 < redis.ttl(EXPIRIES_KEY) <= 3600


@pytest.mark.parametrize("lost", [RESULTS_KEY, EXPIRIES_KEY])
@pytest.mark.usefixtures("worker")
def test_a_server_that_has_lost_half_of_the_cache_begins_anew(redis: Redis, lost: str) -> None:
    records = Records(redis, 3600.0, result_cache_bytes=9 * 600)
    for number in range(6):
        keep(redis, records, number)
    redis.delete(lost)
    for number in range(6, 20):
        keep(redis, records, number)
    assert int(redis.hget(RESULTS_KEY, RESULTS_BYTES) or 0) <= 9 * 600
    assert isinstance(send(redis, embedding(), keep(redis, records, 20)), Answered)


@pytest.mark.usefixtures("worker")
def test_an_answer_whose_files_are_gone_is_withdrawn_and_the_job_can_come_again(
    redis: Redis, records: Records
) -> None:
    run_once(redis, records, image_job(), PAINTED)
    job = image_job()
    answered = send(redis, job)
    assert isinstance(answered, Answered)
    assert (answered.record.result, answered.record.step) == (PAINTED, job.num_steps)
    run_script(redis, withdrawal(job.id, REUSE))
    assert records.get(job.id) is None
    assert send(redis, job) == Queued(0)
    assert events(redis, job.id) == ["queued"]


# how long records are kept


def test_a_record_that_nobody_comes_back_for_is_kept_briefly(
    redis: Redis, records: Records
) -> None:
    send(redis, job := embedding(), keep_s=60)
    assert redis.ttl(record_key(job.id)) == -1
    claim(records)
    finish(records, job.id)
    assert 0 < redis.ttl(record_key(job.id)) <= 60
    assert found(records, job.id).keep_s == 60


@pytest.mark.parametrize("is_final", [False, True])
def test_a_record_that_somebody_comes_back_for_is_kept_like_others(
    redis: Redis, records: Records, is_final: bool
) -> None:
    send(redis, job := embedding(), keep_s=60)
    claim(records)
    if is_final:
        finish(records, job.id)
    records.keep(job.id)
    if not is_final:
        finish(records, job.id)
    assert 60 < redis.ttl(record_key(job.id)) <= 3600
    assert found(records, job.id).keep_s is None
    records.keep("unknown")
    assert records.get("unknown") is None


@pytest.mark.parametrize(("job", "longest_s"), [(embeddings_job("a"), 60), (image_job(), 600)])
def test_rqs_books_and_the_events_of_row_jobs_are_kept_briefly(
    redis: Redis, records: Records, job: AnyJob, longest_s: int
) -> None:
    enqueue(redis, job)
    claim(records, job.task)
    finish(records, job.id)
    keys = (f"rq:job:{job.id}", f"rq:results:{job.id}", events_key(job.id))
    assert {redis.ttl(key) for key in keys} <= {longest_s, longest_s - 1}
    assert 3500 < redis.ttl(record_key(job.id)) <= 3600


def test_rqs_registries_lose_what_has_expired(redis: Redis, records: Records) -> None:
    registry = FinishedJobRegistry(queue=open_queue(redis, Task.EMBEDDINGS))
    redis.zadd(registry.key, {"long ago": LATE})
    enqueue(redis, job := embeddings_job("a"))
    claim(records)
    finish(records, job.id)
    assert redis.zrange(registry.key, 0, -1) == [job.id.encode()]


def test_a_run_that_everybody_has_left_tells_nobody_of_it_any_more(
    redis: Redis, records: Records
) -> None:
    first, second = submit(redis, embedding(), embedding())
    [claimed] = records.claim(Task.EMBEDDINGS, WORKER, 15.0, ["f_net_shapes"], Room(1, 1)).records
    records.cancel(first)
    redis.delete(events_key(first))  # as the server does when they have expired
    records.cancel(second)
    records.report([StepReport(first, claimed.attempt, 1, 4, None)])
    records.finish([Finished(first, claimed.attempt, JobState.CANCELED)])
    assert not redis.exists(events_key(first))
