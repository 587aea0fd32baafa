"""Workers of one queue with different lists: every job ends where its model is."""

from collections.abc import Callable

import pytest
from redis import Redis

from tests.cards import status_of
from tests.worker.conftest import LocalWorker, StartWorker, wait_until, wait_until_final
from tests.worker.jobs import embeddings_job
from worker.contract import workers
from worker.contract.jobs import FailureCode, JobState, Task
from worker.contract.records import AnyJob, Records, enqueue, queue_key
from worker.contract.workers import ModelState, ServedModel, WorkerState
from worker.foreign_jobs import ForeignJobs


def job_for(model: str, text: str = "a red circle") -> AnyJob:
    return embeddings_job(text).model_copy(update={"model": model})


def serve_elsewhere(redis: Redis, model: str, state: ModelState = ModelState.READY) -> None:
    served = (ServedModel(name=model, state=state),)
    workers.write(redis, status_of(Task.EMBEDDINGS, WorkerState.LOADING, served, "another"))


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.mark.parametrize("state", [ModelState.READY, ModelState.LOADING])
def test_a_model_of_a_living_worker_is_foreign(redis: Redis, state: ModelState) -> None:
    serve_elsewhere(redis, "other", state)
    clock = Clock()
    foreign = ForeignJobs(redis, {"ours"}, 60, clock)
    for clock.time in (0, 1000):
        assert foreign.is_foreign("other")
        assert not foreign.is_foreign("ours")


@pytest.mark.parametrize("state", [None, ModelState.FAILED])
def test_a_model_of_nobody_is_foreign_for_a_while(redis: Redis, state: ModelState | None) -> None:
    if state is not None:
        serve_elsewhere(redis, "other", state)
    clock = Clock()
    foreign = ForeignJobs(redis, {"ours"}, 60, clock)
    assert foreign.is_foreign("other")
    clock.time = 59
    assert foreign.is_foreign("other")
    clock.time = 61
    assert not foreign.is_foreign("other")


def test_a_worker_that_comes_back_in_time_gets_its_jobs(redis: Redis) -> None:
    clock = Clock()
    foreign = ForeignJobs(redis, {"ours"}, 60, clock)
    assert foreign.is_foreign("other")
    clock.time = 59
    serve_elsewhere(redis, "other")
    assert foreign.is_foreign("other")
    workers.remove(redis, "another")
    clock.time = 100
    assert foreign.is_foreign("other")


def test_a_job_of_a_model_that_nobody_serves_fails_with_the_reason(
    redis: Redis, records: Records, local_worker: Callable[[Task], LocalWorker]
) -> None:
    enqueue(redis, gone := job_for("gone"), records)
    enqueue(redis, ours := embeddings_job("x"), records)
    local_worker(Task.EMBEDDINGS).run_until_idle()
    record, other = records.get(gone.id), records.get(ours.id)
    assert record is not None
    assert record.failure is not None
    assert record.failure.code is FailureCode.MODEL_NOT_SERVED
    assert other is not None
    assert other.state is JobState.SUCCEEDED


def test_each_job_ends_at_the_worker_that_has_its_model(
    redis: Redis, records: Records, start_worker: StartWorker
) -> None:
    first = '[{"name": "one", "handle": "/x", "task": "embeddings"}]'
    second = '[{"name": "two", "handle": "/x", "task": "embeddings"}]'
    start_worker(Task.EMBEDDINGS, first)
    start_worker(Task.EMBEDDINGS, second)
    jobs = [job_for("one" if i % 3 else "two", f"text {i}") for i in range(60)]
    for job in jobs:
        enqueue(redis, job, records)
    ended = [wait_until_final(records, job.id) for job in jobs]
    assert {record.state for record in ended} == {JobState.SUCCEEDED}
    pairs = {(record.job.model, record.worker) for record in ended}
    assert len(pairs) == len(dict(pairs)) == len({worker for _, worker in pairs}) == 2
    assert redis.llen(queue_key(Task.EMBEDDINGS)) == 0


def test_jobs_wait_for_a_worker_that_is_restarted_with_the_model(
    redis: Redis, records: Records, start_worker: StartWorker
) -> None:
    start_worker(Task.EMBEDDINGS)
    enqueue(redis, job := job_for("one"), records)
    enqueue(redis, ours := embeddings_job("x"), records)
    assert wait_until_final(records, ours.id).state is JobState.SUCCEEDED
    waiting = records.get(job.id)
    assert waiting is not None
    assert waiting.state is JobState.QUEUED
    start_worker(Task.EMBEDDINGS, '[{"name": "one", "handle": "/x", "task": "embeddings"}]')
    assert wait_until_final(records, job.id).state is JobState.SUCCEEDED


def test_a_model_that_does_not_load_leaves_the_others_served(
    redis: Redis, records: Records, start_worker: StartWorker
) -> None:
    listed = (
        '[{"name": "broken", "handle": "/x", "task": "embeddings"},'
        ' {"name": "one", "handle": "/x", "task": "embeddings"}]'
    )
    start_worker(Task.EMBEDDINGS, listed)
    [status] = workers.read_all(redis)
    states = {model.name: model.state for model in status.models}
    assert states == {"broken": ModelState.FAILED, "one": ModelState.READY}
    enqueue(redis, job := job_for("one"), records)
    wait_until(lambda: wait_until_final(records, job.id).state is JobState.SUCCEEDED, "not done")
