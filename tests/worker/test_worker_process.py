"""Real worker processes: killed, frozen, stopped and asked to cancel."""

import base64
import signal
import urllib.request
from pathlib import Path

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from tests.worker import pipelines
from tests.worker.conftest import RESULT_TTL_S, StartWorker, wait_until, wait_until_final
from tests.worker.jobs import embeddings_job, image, image_job
from worker.contract.image_files import ImageFiles, start_name
from worker.contract.jobs import ImageJob, ImageResult, JobState, StartImage, Task
from worker.contract.record import record_key
from worker.contract.records import Records
from worker.contract.submission import enqueue
from worker.contract.workers import ModelState, WorkerState, read_all
from worker.rq_entries import open_queue


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Held jobs go on once this file exists."""
    return tmp_path / "release"


def submit_held(redis: Redis, release: Path) -> ImageJob:
    """An image job of three steps that waits in its last one."""
    job = image_job(f"wait {release}", num_steps=3)
    enqueue(redis, job)
    return job


def wait_until_held(release: Path, records: Records, job: ImageJob, attempt: int = 1) -> None:
    """Until a worker is busy with nothing but the last step: between steps it takes others in."""
    is_held = pipelines.awaited(release)
    wait_until(is_held.exists, f"attempt {attempt} of {job.id} never came to its last step")
    is_held.unlink()  # the next attempt makes its own
    record = records.get(job.id)
    assert record is not None
    assert (record.attempt, record.step) == (attempt, 2)


def assert_books_are_clean(redis: Redis, job_id: str, status: JobStatus) -> None:
    queue = open_queue(redis, Task.IMAGES)

    def is_booked() -> bool:
        started = queue.started_job_registry.get_job_and_execution_ids(cleanup=False)
        return started == [] and Job.fetch(job_id, redis, JSONSerializer).get_status() is status

    wait_until(is_booked, f"RQ's books do not say {status}")
    assert queue.job_ids == []
    assert queue.intermediate_queue.get_job_ids() == []


def test_a_killed_workers_job_runs_again_from_its_start_image_and_has_one_result(
    redis: Redis, records: Records, start_worker: StartWorker, tmp_path: Path, release: Path
) -> None:
    job = image_job(f"wait {release}", num_steps=3)
    start = StartImage(file_name=start_name(job.id), strength=0.5)
    ImageFiles(tmp_path / "images").store_start(base64.b64decode(image()), job.id)
    enqueue(redis, job.model_copy(update={"start": start}))
    victim = start_worker(Task.IMAGES)
    wait_until_held(release, records, job)
    victim.send(signal.SIGKILL)
    victim.exit_code()
    release.touch()
    start_worker(Task.IMAGES)
    record = wait_until_final(records, job.id)
    assert (record.state, record.attempt) == (JobState.SUCCEEDED, 2)
    assert isinstance(record.result, ImageResult)
    written = [path.name for path in (tmp_path / "images").glob("*.png")]
    assert written == [record.result.images[0].file_name]
    assert_books_are_clean(redis, job.id, JobStatus.FINISHED)


def test_a_worker_that_slept_past_its_lease_cannot_end_its_job(
    redis: Redis, records: Records, start_worker: StartWorker, release: Path
) -> None:
    job = submit_held(redis, release)
    sleeper = start_worker(Task.IMAGES)
    wait_until_held(release, records, job)
    sleeper.send(signal.SIGSTOP)
    start_worker(Task.IMAGES)
    wait_until_held(release, records, job, attempt=2)
    release.touch()
    before = wait_until_final(records, job.id)
    sleeper.send(signal.SIGCONT)
    sleeper.send(signal.SIGTERM)
    assert sleeper.exit_code() == 0
    assert records.get(job.id) == before
    assert before.attempt == 2
    assert_books_are_clean(redis, job.id, JobStatus.FINISHED)


def test_a_running_image_is_canceled_at_its_next_step_and_the_worker_goes_on(
    redis: Redis, records: Records, start_worker: StartWorker, tmp_path: Path, release: Path
) -> None:
    canceled = submit_held(redis, release)
    start_worker(Task.IMAGES)
    wait_until_held(release, records, canceled)
    records.cancel(canceled.id)
    release.touch()
    record = wait_until_final(records, canceled.id)
    assert record.state is JobState.CANCELED
    assert not (tmp_path / "images").exists()
    assert_books_are_clean(redis, canceled.id, JobStatus.STOPPED)
    enqueue(redis, job := image_job())
    assert wait_until_final(records, job.id).state is JobState.SUCCEEDED


def test_sigterm_lets_the_running_job_end_and_leaves_the_others_queued(
    redis: Redis, records: Records, start_worker: StartWorker, release: Path
) -> None:
    running = submit_held(redis, release)
    worker = start_worker(Task.IMAGES)
    wait_until_held(release, records, running)
    waiting = image_job()
    enqueue(redis, waiting)
    worker.send(signal.SIGTERM)
    wait_until(
        lambda: [status.state for status in read_all(redis)] == [WorkerState.DRAINING],
        "the worker never said that it drains",
    )
    release.touch()
    assert worker.exit_code() == 0
    assert wait_until_final(records, running.id).state is JobState.SUCCEEDED
    assert open_queue(redis, Task.IMAGES).job_ids == [waiting.id]
    assert read_all(redis) == []


def test_an_idle_worker_wakes_for_a_job_counts_it_and_exits_0_on_sigterm(
    redis: Redis, records: Records, start_worker: StartWorker
) -> None:
    worker = start_worker(Task.EMBEDDINGS)
    job = embeddings_job("a b c")
    enqueue(redis, job)
    assert wait_until_final(records, job.id).state is JobState.SUCCEEDED
    counted = 'triptych_embedding_tokens_total{model="f_net_shapes"} 3.0'
    url = f"http://127.0.0.1:{worker.metrics_port}/metrics"
    assert counted in urllib.request.urlopen(url).read().decode()
    worker.send(signal.SIGTERM)
    assert worker.exit_code() == 0
    assert read_all(redis) == []


def test_a_finished_record_is_kept_as_long_as_the_setting_says(
    redis: Redis, records: Records, start_worker: StartWorker
) -> None:
    start_worker(Task.EMBEDDINGS)
    job = embeddings_job("a text")
    enqueue(redis, job)
    wait_until_final(records, job.id)
    assert RESULT_TTL_S - 60 < redis.ttl(record_key(job.id)) <= RESULT_TTL_S


def test_sigterm_ends_a_worker_that_loads_at_once(redis: Redis, start_worker: StartWorker) -> None:
    slow = '[{"name": "slow", "handle": "/x", "task": "classify"}]'
    worker = start_worker(Task.CLASSIFY, slow, is_to_be_warm=False)
    wait_until(lambda: bool(read_all(redis)), "the worker said nothing")
    [status] = read_all(redis)
    assert (status.state, status.models[0].state) == (WorkerState.LOADING, ModelState.LOADING)
    worker.send(signal.SIGTERM)
    assert worker.exit_code() == 0
    assert read_all(redis) == []


def test_a_worker_whose_forward_hangs_ends_and_says_where(
    redis: Redis,
    records: Records,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    worker = start_worker(Task.IMAGES, hang_s="3")
    enqueue(redis, job := image_job(f"hang {tmp_path / 'hung'}"))
    assert worker.exit_code() == 1
    assert "in hang_once" in worker.log.read_text()
    wait_until(lambda: bool(records.reap(Task.IMAGES, 2)), "the lease never ended")
    record = records.get(job.id)
    assert record is not None
    assert record.state is JobState.QUEUED
