"""A worker that is asked to end: what it finishes, and what it gives back."""

import os
import signal
from collections.abc import Sequence

import pytest
from redis import Redis

from tests.worker.conftest import LocalWorker, MakeWorker
from tests.worker.jobs import embeddings_job, image_job
from tests.worker.pipelines import TinyEmbedder, TinyImagePipeline, TinyRow
from worker.contract.jobs import ImageJob, JobState, Task
from worker.contract.record import Record, record_key
from worker.contract.records import Records, Room
from worker.contract.submission import enqueue


def record_of(redis: Redis, job_id: str) -> Record:
    record = Records(redis).get(job_id)
    assert record is not None
    return record


def end_in_step(local: LocalWorker, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run it, and ask it to end while it is at a step."""
    assert isinstance(local.pipeline, TinyImagePipeline)
    do_step, num_begun = local.pipeline.step, list[int]()

    def step(rows: Sequence[TinyRow]) -> None:
        num_begun.append(1)
        if len(num_begun) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        do_step(rows)

    monkeypatch.setattr(local.pipeline, "step", step)
    local.worker.serve()
    assert not local.worker.has_failed


@pytest.fixture
def job(redis: Redis) -> ImageJob:
    enqueue(redis, job := image_job(num_steps=4))
    return job


def test_what_fits_in_the_grace_period_is_finished(
    redis: Redis, local_worker: MakeWorker, job: ImageJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_in_step(local_worker(Task.IMAGES), 2, monkeypatch)
    assert record_of(redis, job.id).state is JobState.SUCCEEDED


def test_what_does_not_fit_is_given_back_after_the_step_and_runs_elsewhere(
    redis: Redis, local_worker: MakeWorker, job: ImageJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_in_step(local_worker(Task.IMAGES, drain_grace_s=0.0), 2, monkeypatch)
    given_back = record_of(redis, job.id)
    assert (given_back.state, given_back.step) == (JobState.QUEUED, 0)
    assert [(past.attempt, past.end) for past in given_back.past_attempts] == [(1, "given_back")]
    assert redis.hget(record_key(job.id), "losses") in (None, b"0")
    local_worker(Task.IMAGES).run_until_idle()
    done = record_of(redis, job.id)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)


def test_what_is_given_back_keeps_its_turn(
    redis: Redis, local_worker: MakeWorker, job: ImageJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = local_worker(Task.IMAGES, drain_grace_s=0.0)
    end_in_step(local, 2, monkeypatch)
    enqueue(redis, later := image_job(num_steps=4))
    records = Records(redis)
    [first] = records.claim(Task.IMAGES, "another", 15.0, [later.model], Room(1, 1)).records
    assert first.id == job.id


def test_texts_whose_forward_is_still_to_come_are_given_back(
    redis: Redis, local_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = embeddings_job("a"), embeddings_job("a b c d e")  # a forward each
    for job in (short, long):
        enqueue(redis, job)
    local = local_worker(Task.EMBEDDINGS, drain_grace_s=0.0)
    assert isinstance(local.pipeline, TinyEmbedder)
    encode = local.pipeline.encode

    def encode_and_end(batch: Sequence[object]) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return encode(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(local.pipeline, "encode", encode_and_end)
    local.worker.serve()
    ended = {record_of(redis, job.id).state for job in (short, long)}
    assert ended == {JobState.SUCCEEDED, JobState.QUEUED}
