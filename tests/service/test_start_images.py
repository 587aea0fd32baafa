"""Start images: there as long as their jobs can run, and gone soon after."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from redis import Redis

from service.main import create_app
from service.settings import ServiceSettings
from service.start_images import sweep
from tests.claims import claim_one
from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of, serve, wait_for
from tests.worker.jobs import image_job
from worker.contract.image_files import ImageFiles, start_name
from worker.contract.jobs import ImageJob, JobState, Task
from worker.contract.records import Finished, Records
from worker.contract.submission import enqueue
from worker.failures import worker_lost

ROUTE = "/v1/images/generations"


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    return ImageFiles(tmp_path / "images")


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis)


def is_there(files: ImageFiles, job: ImageJob) -> bool:
    return job.id in {file.job_id for file in files.start_files()}


def submitted(redis: Redis, files: ImageFiles, deadline_at: float | None = None) -> ImageJob:
    job = image_job(deadline_at=deadline_at)
    files.store_start(PNG, job.id)
    enqueue(redis, job)
    return job


def lost_and_put_back(records: Records, job: ImageJob) -> None:
    claim_one(records, Task.IMAGES)
    records.release(job.id, 1)


@pytest.mark.parametrize(
    "happens",
    [
        lambda *_: None,
        lambda records, _: claim_one(records, Task.IMAGES),
        lost_and_put_back,
    ],
    ids=["waiting", "running", "put back after the loss of a worker"],
)
def test_a_job_that_can_still_run_keeps_its_start_image(
    redis: Redis, records: Records, files: ImageFiles, happens: Callable[[Records, ImageJob], None]
) -> None:
    job = submitted(redis, files)
    happens(records, job)
    age(files, job.id)
    sweep(files, records)
    assert is_there(files, job)


def finished(records: Records, job: ImageJob) -> None:
    claim_one(records, Task.IMAGES)
    records.finish([Finished(job.id, 1, JobState.EXPIRED)])


def given_up(records: Records, job: ImageJob) -> None:
    claim_one(records, Task.IMAGES)
    records.finish([Finished(job.id, 1, worker_lost(1))])


@pytest.mark.parametrize(
    "happens", [finished, given_up, lambda records, job: records.cancel(job.id)],
    ids=["finished", "given up", "canceled while it waits"],
)  # fmt: skip
def test_a_job_that_is_over_leaves_no_start_image(
    redis: Redis, records: Records, files: ImageFiles, happens: Callable[[Records, ImageJob], None]
) -> None:
    job, other = submitted(redis, files), submitted(redis, files)
    happens(records, job)
    sweep(files, records)
    assert not is_there(files, job)
    assert is_there(files, other)


def test_a_job_past_its_deadline_leaves_none_though_no_worker_came(
    redis: Redis, records: Records, files: ImageFiles
) -> None:
    job = submitted(redis, files, deadline_at=time.time() - 1)
    sweep(files, records)
    assert not is_there(files, job)


def test_a_file_without_a_record_goes_once_no_submit_can_be_under_way(
    records: Records, files: ImageFiles, tmp_path: Path
) -> None:
    for job_id in ("job_new", "job_old"):
        files.store_start(PNG, job_id)
    age(files, "job_old")
    (tmp_path / "images" / "start" / "tmp1.part").write_bytes(PNG)  # whose writer was killed
    os.utime(tmp_path / "images" / "start" / "tmp1.part", (0, 0))
    sweep(files, records)
    assert [file.path.name for file in files.start_files()] == [start_name("job_new")]


def age(files: ImageFiles, job_id: str) -> None:
    [path] = [file.path for file in files.start_files() if file.job_id == job_id]
    os.utime(path, (0, 0))


def test_the_service_removes_what_is_over_by_itself(http: httpx.Client, worker: TestWorker) -> None:
    http.post(ROUTE, json={"prompt": "x", "image": PNG_BASE64}).raise_for_status()
    [job] = worker.jobs
    assert isinstance(job, ImageJob)
    wait_for(lambda: not is_there(worker.image_files, job))


def test_a_full_queue_leaves_no_start_image(
    redis: Redis, settings: ServiceSettings, tmp_path: Path
) -> None:
    enqueue(redis, image_job())
    app = create_app(settings.model_copy(update={"max_queue_depth": 1, "data_dir": tmp_path}))
    with serve(app) as url:
        response = httpx.post(f"{url}{ROUTE}", json={"prompt": "x", "image": PNG_BASE64})
    assert error_of(response, 429)["code"] == "queue_full"
    assert list((tmp_path / "images" / "start").iterdir()) == []
