"""Workers of one queue with different lists: every job ends where its model is."""

import math
import random
import signal
import threading
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.cards import status_of
from tests.worker.conftest import StartWorker, commands_of, wait_until, wait_until_final
from tests.worker.jobs import embeddings_job
from tests.worker.redis_proxy import redis_proxy
from tests.worker.waiting import waiting
from worker.contract import workers
from worker.contract.jobs import JobState, Task
from worker.contract.record import AnyJob
from worker.contract.records import Records, Room
from worker.contract.submission import enqueue
from worker.contract.workers import ModelState, ServedModel, WorkerState
from worker.job_selection import JobSelection
from worker.jobs_in_hand import JobsInHand
from worker.metrics import WorkerMetrics

ONE = Room(max_jobs=1, rows_of_new_group=1)


def job_for(model: str, text: str = "a red circle", deadline_at: float | None = None) -> AnyJob:
    job = embeddings_job(text, deadline_at=deadline_at)
    return job.model_copy(update={"model": model})


def put(redis: Redis, *models: str) -> list[str]:
    jobs = [job_for(model) for model in models]
    for job in jobs:
        enqueue(redis, job)
    return [job.id for job in jobs]


def serve_elsewhere(
    redis: Redis, model: str, state: ModelState = ModelState.READY, task: Task = Task.EMBEDDINGS
) -> None:
    served = (ServedModel(name=model, state=state),)
    workers.write(redis, status_of(task, WorkerState.LOADING, served, "another"))


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
        self.open_to_jobs: tuple[str, ...] = ("ours", "ours too")
        self.failed: tuple[str, ...] = ()
        self.is_busy = False
        self.asked: list[tuple[list[str], bool, list[str]]] = []

    def advance(self, waiting: Collection[str], is_idle: bool, in_use: Collection[str]) -> None:
        self.asked.append((list(waiting), is_idle, list(in_use)))
        if self.is_busy:
            self.open_to_jobs, self.is_busy = self.names, False
        elif "coming" in waiting and "coming" not in self.open_to_jobs:
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
    jobs = JobsInHand(records, records, WorkerMetrics(Task.IMAGES), "worker", lease_s=15.0)
    return JobSelection(redis, records, jobs, Task.EMBEDDINGS, models, 60, clock)


def claim_one(selection: JobSelection) -> str | None:
    records = selection.claim(ONE)
    return records[0].id if records else None


def look_for(selection: JobSelection, clock: Clock, seconds: float) -> str | None:
    """Look for a job once a second."""
    end = clock.time + seconds
    while (found := claim_one(selection)) is None and clock.time < end:
        clock.time += 1
    return found


def test_our_jobs_are_taken_in_their_order_and_the_others_stay(
    redis: Redis, selection: JobSelection
) -> None:
    serve_elsewhere(redis, "other")
    a, b, c, d, e = put(redis, "other", "ours", "other", "ours too", "ours")
    assert [claim_one(selection) for _ in range(4)] == [b, d, e, None]
    assert waiting(redis, Task.EMBEDDINGS) == [a, c]


def test_a_job_of_a_model_that_is_not_here_brings_it_and_others_go_first(
    redis: Redis, selection: JobSelection, models: Models
) -> None:
    a, b = put(redis, "coming", "ours")
    assert claim_one(selection) == b
    selection.advance_models(["ours"])
    assert models.asked == [(["coming"], False, ["ours"])]
    assert claim_one(selection) is None
    selection.advance_models([])
    assert claim_one(selection) == a


def test_a_job_of_a_model_that_failed_here_waits_where_another_has_it(
    redis: Redis, selection: JobSelection, models: Models, clock: Clock
) -> None:
    models.failed, models.open_to_jobs = ("ours too",), ("ours",)
    serve_elsewhere(redis, "ours too")
    [job] = put(redis, "ours too")
    assert look_for(selection, clock, 200) is None
    serve_elsewhere(redis, "ours too", ModelState.FAILED)
    clock.time += 1
    assert claim_one(selection) == job


def test_models_are_told_when_nothing_is_there_for_those_that_are_here(
    redis: Redis, selection: JobSelection, models: Models
) -> None:
    put(redis, "coming")
    assert claim_one(selection) is None
    selection.advance_models([])
    selection.advance_models(["ours"])
    assert models.asked == [(["coming"], True, []), (["coming"], False, ["ours"])]


def test_without_room_nothing_is_asked_of_redis_and_who_waits_is_remembered(
    redis: Redis, selection: JobSelection, models: Models
) -> None:
    put(redis, "coming")
    assert claim_one(selection) is None
    sent = commands_of(redis, lambda: selection.claim(Room(0, 1)))
    selection.advance_models(["ours"])
    assert sent == []
    assert models.asked == [(["coming"], False, ["ours"])]


@pytest.mark.parametrize("room", [Room(8, 0), Room(8, 0, {"ours": 0, "ours too": -1})])
def test_where_no_group_has_room_nothing_is_asked_of_redis(
    redis: Redis, selection: JobSelection, room: Room
) -> None:
    put(redis, "ours")
    assert commands_of(redis, lambda: selection.claim(room)) == []


def test_jobs_of_new_groups_alone_are_looked_for_now_and_then(
    redis: Redis, selection: JobSelection, clock: Clock
) -> None:
    new_alone = Room(8, 1, {"ours": 0})
    assert selection.claim(new_alone) == []
    _, new = put(redis, "ours", "ours too")
    assert selection.claim(new_alone) == []
    clock.time += 0.1
    assert [record.id for record in selection.claim(new_alone)] == [new]


def test_room_in_a_group_in_hand_is_filled_at_once(redis: Redis, selection: JobSelection) -> None:
    assert claim_one(selection) is None
    [job] = put(redis, "ours")
    assert [record.id for record in selection.claim(Room(8, 0, {"ours": 1}))] == [job]


def test_who_waits_is_woken_by_the_next_job(redis: Redis, selection: JobSelection) -> None:
    for _ in range(2):
        timer = threading.Timer(0.2, put, (redis, "ours"))
        timer.start()
        selection.wait(30)
        timer.join()
        [job] = waiting(redis, Task.EMBEDDINGS)
        assert claim_one(selection) == job


def test_a_wait_ends_with_its_time(selection: JobSelection) -> None:
    selection.wait(0.01)
    assert claim_one(selection) is None


def test_what_a_lost_claim_took_is_taken_in_hand_although_there_is_no_room_for_more(
    redis: Redis, redis_url: str, models: Models
) -> None:
    with redis_proxy(redis_url) as proxy:
        records = Records(proxy.client(num_retries=0))
        jobs = JobsInHand(records, records, WorkerMetrics(Task.IMAGES), "worker", lease_s=15.0)
        selection = JobSelection(redis, records, jobs, Task.EMBEDDINGS, models)
        claim_one(selection)  # from here on the server knows the script
        lost, waiting_on = put(redis, "ours", "ours")
        proxy.loses_replies = 1
        with pytest.raises(RedisConnectionError):
            claim_one(selection)
        no_room = Room(max_jobs=0, rows_of_new_group=0)
        assert [record.id for record in selection.claim(no_room)] == [lost]
        assert selection.claim(no_room) == []
        assert claim_one(selection) == waiting_on


def test_a_job_that_was_woken_for_is_there_after_a_claim_that_failed(
    redis: Redis, redis_url: str, models: Models
) -> None:
    with redis_proxy(redis_url) as proxy:
        records = Records(proxy.client(num_retries=0))
        jobs = JobsInHand(records, records, WorkerMetrics(Task.IMAGES), "worker", lease_s=15.0)
        selection = JobSelection(redis, records, jobs, Task.EMBEDDINGS, models)
        assert claim_one(selection) is None
        [job] = put(redis, "ours")
        selection.wait(5.0)
        proxy.go_away()
        with pytest.raises(RedisConnectionError):
            claim_one(selection)
        proxy.is_away = False
        selection.wait(5.0)
        assert claim_one(selection) == job


@pytest.mark.parametrize("state", [ModelState.READY, ModelState.LOADING])
def test_a_job_for_a_living_workers_model_is_never_taken(
    redis: Redis, selection: JobSelection, clock: Clock, state: ModelState
) -> None:
    serve_elsewhere(redis, "other", state)
    put(redis, "other")
    assert look_for(selection, clock, 200) is None


def test_a_job_for_nobodys_model_is_taken_after_a_while(
    redis: Redis, selection: JobSelection, clock: Clock
) -> None:
    serve_elsewhere(redis, "other", ModelState.FAILED)
    [job] = put(redis, "other")
    assert look_for(selection, clock, 55) is None
    assert look_for(selection, clock, 10) == job


def test_the_same_name_of_another_task_does_not_count(
    redis: Redis, selection: JobSelection, clock: Clock
) -> None:
    serve_elsewhere(redis, "other", task=Task.CLASSIFY)
    [job] = put(redis, "other")
    assert look_for(selection, clock, 65) == job


def test_each_absence_has_its_own_while(
    redis: Redis, records: Records, selection: JobSelection, clock: Clock
) -> None:
    [job] = put(redis, "other")
    assert look_for(selection, clock, 50) is None
    records.cancel(job)  # what another worker does with it looks the same
    clock.time += 100_000
    [again] = put(redis, "other")
    assert look_for(selection, clock, 50) is None
    serve_elsewhere(redis, "other")
    assert look_for(selection, clock, 20) is None
    workers.remove(redis, "another")
    assert look_for(selection, clock, 50) is None
    assert look_for(selection, clock, 15) == again


def test_each_job_ends_at_the_worker_that_has_its_model(
    redis: Redis, records: Records, start_worker: StartWorker
) -> None:
    start_worker(Task.EMBEDDINGS, served_list("one"))
    start_worker(Task.EMBEDDINGS, served_list("two"))
    ids = put(redis, *("one" if i % 3 else "two" for i in range(60)))
    ended = [wait_until_final(records, job_id) for job_id in ids]
    assert {record.state for record in ended} == {JobState.SUCCEEDED}
    pairs = {(record.job.model, record.worker) for record in ended}
    assert len(pairs) == len(dict(pairs)) == len({worker for _, worker in pairs}) == 2
    assert waiting(redis, Task.EMBEDDINGS) == []


def test_jobs_that_wait_for_a_busy_worker_survive_the_others_reaper_and_restart(
    redis: Redis,
    records: Records,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    busy_until = tmp_path / "done"
    start_worker(Task.EMBEDDINGS, served_list("two"))
    enqueue(redis, job_for("two", f"wait {busy_until}"))
    wait_until(lambda: waiting(redis, Task.EMBEDDINGS) == [], "the job was not taken")
    queued = put(redis, *["two"] * 8)
    other = start_worker(Task.EMBEDDINGS, served_list("one"))
    [own] = put(redis, "one")
    assert wait_until_final(records, own).state is JobState.SUCCEEDED
    time.sleep(2.0)  # more than a lease, and four rounds of the reaper
    other.send(signal.SIGTERM)
    assert other.exit_code() == 0
    busy_until.touch()
    states = {wait_until_final(records, job_id).state for job_id in queued}
    assert states == {JobState.SUCCEEDED}


def test_jobs_wait_for_a_worker_that_is_restarted_with_the_model(
    redis: Redis, records: Records, start_worker: StartWorker
) -> None:
    start_worker(Task.EMBEDDINGS)
    job, ours = put(redis, "one", "f_net_shapes")
    assert wait_until_final(records, ours).state is JobState.SUCCEEDED
    record = records.get(job)
    assert record is not None
    assert record.state is JobState.QUEUED
    start_worker(Task.EMBEDDINGS, served_list("one"))
    assert wait_until_final(records, job).state is JobState.SUCCEEDED


@pytest.mark.parametrize("budget", ["1.5MB", "2.5MB"])
def test_models_that_do_not_fit_together_all_get_their_turn(
    redis: Redis, records: Records, start_worker: StartWorker, budget: str
) -> None:
    names = ("one", "two", "three", "four")
    start_worker(Task.EMBEDDINGS, served_list(*names), memory_budget=budget)
    rng = random.Random(1)
    ids = put(redis, *(rng.choice(names) for _ in range(60)))
    flood = put(redis, *["one"] * 60)
    [last] = put(redis, "four")
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
    [job] = put(redis, "one")
    assert wait_until_final(records, job).state is JobState.SUCCEEDED
