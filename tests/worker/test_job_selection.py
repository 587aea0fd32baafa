"""Workers of one queue with different lists: every job ends where its model is."""

import math
import random
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from redis import Redis
from rq.exceptions import DequeueTimeout

from tests.cards import status_of
from tests.worker.conftest import LocalWorker, StartWorker, wait_until, wait_until_final
from tests.worker.jobs import embeddings_job
from worker.contract import workers
from worker.contract.jobs import FailureCode, JobState, Task
from worker.contract.records import AnyJob, Records, as_text, enqueue, queue_key
from worker.contract.workers import ModelState, ServedModel, WorkerState
from worker.job_selection import JobSelection

INTERMEDIATE = f"{queue_key(Task.EMBEDDINGS)}:intermediate"


def job_for(model: str, text: str = "a red circle", deadline_at: float | None = None) -> AnyJob:
    job = embeddings_job(text, deadline_at=deadline_at)
    return job.model_copy(update={"model": model})


def put(redis: Redis, records: Records, *models: str) -> list[str]:
    jobs = [job_for(model) for model in models]
    for job in jobs:
        enqueue(redis, job, records)
    return [job.id for job in jobs]


def serve_elsewhere(
    redis: Redis, model: str, state: ModelState = ModelState.READY, task: Task = Task.EMBEDDINGS
) -> None:
    served = (ServedModel(name=model, state=state),)
    workers.write(redis, status_of(task, WorkerState.LOADING, served, "another"))


def listed(redis: Redis, key: str) -> list[str]:
    return [as_text(job_id) for job_id in redis.lrange(key, 0, -1)]


def served_list(*names: str) -> str:
    specs = [f'{{"name": "{name}", "handle": "/x", "task": "embeddings"}}' for name in names]
    return f"[{', '.join(specs)}]"


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Models:
    """Two models of ours, and a third that comes when it is waited for."""

    def __init__(self) -> None:
        self.names = ("ours", "ours too", "coming")
        self.resident: tuple[str, ...] = ("ours", "ours too")
        self.failed: tuple[str, ...] = ()
        self.is_busy = False
        self.asked: list[tuple[list[str], bool]] = []

    def advance(self, waiting: Collection[str], is_idle: bool) -> None:
        self.asked.append((list(waiting), is_idle))
        if self.is_busy:
            self.resident, self.is_busy = self.names, False
        elif "coming" in waiting and "coming" not in self.resident:
            self.is_busy = True

    def wait(self, timeout_s: float) -> None:
        assert timeout_s < 1

    def idle_s(self) -> float:
        return math.inf


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def selection(redis: Redis, records: Records, clock: Clock, models: Models) -> JobSelection:
    return JobSelection(redis, records, Task.EMBEDDINGS, models, 60, clock)


def look_for(selection: JobSelection, clock: Clock, seconds: float) -> str | None:
    """Look for a job once a second."""
    end = clock.time + seconds
    while (found := selection.next_now()) is None and clock.time < end:
        clock.time += 1
    return found


def test_our_jobs_are_taken_in_their_order_and_the_others_stay(
    redis: Redis, records: Records, selection: JobSelection
) -> None:
    serve_elsewhere(redis, "other")
    a, b, c, d, e = put(redis, records, "other", "ours", "other", "ours too", "ours")
    assert [selection.next_now() for _ in range(4)] == [b, d, e, None]
    assert listed(redis, queue_key(Task.EMBEDDINGS)) == [a, c]
    assert listed(redis, INTERMEDIATE) == [b, d, e]


def test_a_job_past_its_deadline_and_an_entry_without_a_record_are_anyones(
    redis: Redis, records: Records, selection: JobSelection
) -> None:
    serve_elsewhere(redis, "other")
    enqueue(redis, late := job_for("other", deadline_at=time.time() - 1), records)
    redis.rpush(queue_key(Task.EMBEDDINGS), "unknown")
    assert [selection.next_now() for _ in range(3)] == [late.id, "unknown", None]


def test_a_job_of_a_model_that_is_not_here_brings_it_and_others_go_first(
    redis: Redis, records: Records, selection: JobSelection, models: Models
) -> None:
    a, b = put(redis, records, "coming", "ours")
    assert selection.next_now() == b
    assert models.asked == []  # within a batch, models stay
    assert selection.next(5) == a
    assert models.asked[0] == (["coming"], False)


def test_a_job_of_a_model_that_failed_here_waits_where_another_has_it(
    redis: Redis, records: Records, selection: JobSelection, models: Models, clock: Clock
) -> None:
    models.failed, models.resident = ("ours too",), ("ours",)
    serve_elsewhere(redis, "ours too")
    [job] = put(redis, records, "ours too")
    assert look_for(selection, clock, 200) is None
    serve_elsewhere(redis, "ours too", ModelState.FAILED)
    clock.time += 1
    assert selection.next_now() == job


def test_models_are_told_when_nothing_is_there_for_those_that_are_here(
    redis: Redis, records: Records, selection: JobSelection, models: Models
) -> None:
    [a] = put(redis, records, "coming")
    assert selection.next(5) == a
    assert models.asked[:2] == [([], True), (["coming"], True)]


def test_who_waits_gets_the_next_of_its_own(
    redis: Redis, records: Records, selection: JobSelection
) -> None:
    serve_elsewhere(redis, "other")
    [other] = put(redis, records, "other")
    with pytest.raises(DequeueTimeout):
        selection.next(0.2)
    [ours] = put(redis, records, "ours")
    assert selection.next(5) == ours
    assert listed(redis, queue_key(Task.EMBEDDINGS)) == [other]
    assert listed(redis, INTERMEDIATE) == [ours]


@pytest.mark.parametrize("state", [ModelState.READY, ModelState.LOADING])
def test_a_job_for_a_living_workers_model_is_never_taken(
    redis: Redis, records: Records, selection: JobSelection, clock: Clock, state: ModelState
) -> None:
    serve_elsewhere(redis, "other", state)
    put(redis, records, "other")
    assert look_for(selection, clock, 200) is None


def test_a_job_for_nobodys_model_is_taken_after_a_while(
    redis: Redis, records: Records, selection: JobSelection, clock: Clock
) -> None:
    serve_elsewhere(redis, "other", ModelState.FAILED)
    [job] = put(redis, records, "other")
    assert look_for(selection, clock, 55) is None
    assert look_for(selection, clock, 10) == job


def test_the_same_name_of_another_task_does_not_count(
    redis: Redis, records: Records, selection: JobSelection, clock: Clock
) -> None:
    serve_elsewhere(redis, "other", task=Task.CLASSIFY)
    [job] = put(redis, records, "other")
    assert look_for(selection, clock, 65) == job


def test_each_absence_has_its_own_while(
    redis: Redis, records: Records, selection: JobSelection, clock: Clock
) -> None:
    [job] = put(redis, records, "other")
    assert look_for(selection, clock, 50) is None
    records.cancel(job)  # what another worker does with it looks the same
    clock.time += 100_000
    [again] = put(redis, records, "other")
    assert look_for(selection, clock, 50) is None
    serve_elsewhere(redis, "other")
    assert look_for(selection, clock, 20) is None
    workers.remove(redis, "another")
    assert look_for(selection, clock, 50) is None
    assert look_for(selection, clock, 15) == again


def test_a_job_of_a_model_that_is_not_held_fails_with_the_reason(
    redis: Redis, records: Records, local_worker: Callable[[Task], LocalWorker]
) -> None:
    worker = local_worker(Task.EMBEDDINGS)
    [gone] = put(redis, records, "gone")
    batch = worker.batches.take([gone])
    batch.outcome(gone)
    record = records.get(gone)
    assert record is not None
    assert record.failure is not None
    assert record.failure.code is FailureCode.MODEL_NOT_SERVED


def test_each_job_ends_at_the_worker_that_has_its_model(
    redis: Redis, records: Records, start_worker: StartWorker
) -> None:
    start_worker(Task.EMBEDDINGS, served_list("one"))
    start_worker(Task.EMBEDDINGS, served_list("two"))
    ids = put(redis, records, *("one" if i % 3 else "two" for i in range(60)))
    ended = [wait_until_final(records, job_id) for job_id in ids]
    assert {record.state for record in ended} == {JobState.SUCCEEDED}
    pairs = {(record.job.model, record.worker) for record in ended}
    assert len(pairs) == len(dict(pairs)) == len({worker for _, worker in pairs}) == 2
    assert redis.llen(queue_key(Task.EMBEDDINGS)) == 0


def test_jobs_that_wait_for_a_busy_worker_survive_the_others_reaper_and_restart(
    redis: Redis,
    records: Records,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    busy_until = tmp_path / "done"
    start_worker(Task.EMBEDDINGS, served_list("two"))
    enqueue(redis, job_for("two", f"wait {busy_until}"), records)
    wait_until(lambda: redis.llen(queue_key(Task.EMBEDDINGS)) == 0, "the job was not taken")
    waiting = put(redis, records, *["two"] * 8)
    other = start_worker(Task.EMBEDDINGS, served_list("one"))
    [own] = put(redis, records, "one")
    assert wait_until_final(records, own).state is JobState.SUCCEEDED
    time.sleep(2.0)  # more than a lease, and four rounds of the reaper
    other.send(signal.SIGTERM)
    assert other.exit_code() == 0
    busy_until.touch()
    states = {wait_until_final(records, job_id).state for job_id in waiting}
    assert states == {JobState.SUCCEEDED}


def test_jobs_wait_for_a_worker_that_is_restarted_with_the_model(
    redis: Redis, records: Records, start_worker: StartWorker
) -> None:
    start_worker(Task.EMBEDDINGS)
    job, ours = put(redis, records, "one", "f_net_shapes")
    assert wait_until_final(records, ours).state is JobState.SUCCEEDED
    waiting = records.get(job)
    assert waiting is not None
    assert waiting.state is JobState.QUEUED
    start_worker(Task.EMBEDDINGS, served_list("one"))
    assert wait_until_final(records, job).state is JobState.SUCCEEDED


@pytest.mark.parametrize("budget", ["1.5MB", "2.5MB"])
def test_models_that_do_not_fit_together_all_get_their_turn(
    redis: Redis, records: Records, start_worker: StartWorker, budget: str
) -> None:
    names = ("one", "two", "three", "four")
    start_worker(Task.EMBEDDINGS, served_list(*names), memory_budget=budget)
    rng = random.Random(1)
    ids = put(redis, records, *(rng.choice(names) for _ in range(60)))
    flood = put(redis, records, *["one"] * 60)
    [last] = put(redis, records, "four")
    ended = [wait_until_final(records, job_id) for job_id in (*ids, *flood, last)]
    assert {record.state for record in ended} == {JobState.SUCCEEDED}
    [status] = workers.read_all(redis)
    assert {model.state for model in status.models} == {ModelState.READY}
    assert sum(model.is_resident for model in status.models) <= int(budget[0])


def test_a_model_that_does_not_load_leaves_the_others_served(
    redis: Redis, records: Records, start_worker: StartWorker
) -> None:
    start_worker(Task.EMBEDDINGS, served_list("broken", "one"))
    [status] = workers.read_all(redis)
    states = {model.name: model.state for model in status.models}
    assert states == {"broken": ModelState.FAILED, "one": ModelState.READY}
    [job] = put(redis, records, "one")
    assert wait_until_final(records, job).state is JobState.SUCCEEDED
