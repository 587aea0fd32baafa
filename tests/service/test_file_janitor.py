"""Image files: there as long as a job needs them, and gone soon after."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest
from redis import Redis

from service import file_janitor
from service.file_janitor import FileJanitor
from service.main import create_app
from service.metrics import Metrics
from service.settings import ServiceSettings
from tests.claims import claim_one
from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of, serve, wait_for
from tests.worker.jobs import image_job
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import Image, ImageJob, ImageResult, JobState, OutputFormat, Task
from worker.contract.record import record_key
from worker.contract.records import Finished, Records
from worker.contract.submission import enqueue

ROUTE = "/v1/images/generations"
TTL_S = 3600.0


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    return ImageFiles(tmp_path / "images")


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def janitor(redis: Redis, records: Records, files: ImageFiles, metrics: Metrics) -> FileJanitor:
    return FileJanitor(redis, records, files, metrics, TTL_S)


def sweep(janitor: FileJanitor, in_s: float = 0.0) -> None:
    """One round, as it would be then."""
    janitor.sweep(time.time() + in_s)


def names(files: ImageFiles) -> list[str]:
    return sorted(file.path.name for file in [*files.walk_start_images(), *files.walk_images()])


def submitted(redis: Redis, deadline_at: float | None = None) -> ImageJob:
    job = image_job(deadline_at=deadline_at)
    enqueue(redis, job)
    return job


def with_start_image(redis: Redis, files: ImageFiles, deadline_at: float | None = None) -> ImageJob:
    job = image_job(deadline_at=deadline_at)
    files.store_start(PNG, job.id)
    enqueue(redis, job)
    return job


def painted(records: Records, files: ImageFiles, job: ImageJob) -> str:
    """The job's one image, the job being over."""
    claim_one(records, Task.IMAGES)
    return finished_with_an_image(records, files, job.id)


def finished_with_an_image(records: Records, files: ImageFiles, job_id: str) -> str:
    name = files.store(PNG, job_id, attempt=1, index=0, output_format="png")
    image = Image(file_name=name, seed=7, width=64, height=96, num_bytes=len(PNG))
    result = ImageResult(
        images=(image,), num_text_tokens=9, is_prompt_truncated=False, num_patches=24
    )
    assert records.finish([Finished(job_id, 1, result)]) == [True]
    return name


def half_written(directory: Path, name: str) -> Path:
    """As a writer that was killed leaves it."""
    path = directory / f"{name}.a1b2c3d4.part"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG[:20])
    return path


def lost_and_put_back(records: Records, job: ImageJob) -> None:
    claim_one(records, Task.IMAGES)
    records.release({job.id: 1})


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
    redis: Redis,
    records: Records,
    files: ImageFiles,
    janitor: FileJanitor,
    happens: Callable[[Records, ImageJob], None],
) -> None:
    job = with_start_image(redis, files)
    happens(records, job)
    sweep(janitor, in_s=10 * TTL_S)
    assert names(files) == [f"{job.id}.start"]


def finished(records: Records, job: ImageJob) -> None:
    claim_one(records, Task.IMAGES)
    records.finish([Finished(job.id, 1, JobState.EXPIRED)])


def given_up(records: Records, job: ImageJob) -> None:
    claim_one(records, Task.IMAGES)
    records.renew({job.id: 1}, -1.0)
    records.reap(Task.IMAGES, max_losses=1)


@pytest.mark.parametrize(
    "happens", [finished, given_up, lambda records, job: records.cancel(job.id)],
    ids=["finished", "given up", "canceled while it waits"],
)  # fmt: skip
def test_a_job_that_is_over_leaves_no_start_image(
    redis: Redis,
    records: Records,
    files: ImageFiles,
    janitor: FileJanitor,
    happens: Callable[[Records, ImageJob], None],
) -> None:
    job = with_start_image(redis, files)
    happens(records, job)
    other = with_start_image(redis, files)
    sweep(janitor)
    assert names(files) == [f"{other.id}.start"]


def test_a_job_past_its_deadline_leaves_none_though_no_worker_came(
    redis: Redis, files: ImageFiles, janitor: FileJanitor
) -> None:
    with_start_image(redis, files, deadline_at=time.time() - 1)
    sweep(janitor)
    assert names(files) == []


def test_a_start_image_without_a_record_goes_once_no_submit_can_be_under_way(
    files: ImageFiles, janitor: FileJanitor
) -> None:
    files.store_start(PNG, "job_1")
    sweep(janitor, in_s=30)
    assert names(files) == ["job_1.start"]
    sweep(janitor, in_s=90)
    assert names(files) == []


def test_an_image_stays_as_long_as_the_record_that_names_it(
    redis: Redis, records: Records, files: ImageFiles, janitor: FileJanitor
) -> None:
    name = painted(records, files, submitted(redis))
    sweep(janitor, in_s=10 * TTL_S)
    assert names(files) == [name]


def test_an_image_goes_when_its_record_is_gone(
    redis: Redis, records: Records, files: ImageFiles, janitor: FileJanitor, metrics: Metrics
) -> None:
    job = submitted(redis)
    painted(records, files, job)
    redis.delete(record_key(job.id))
    sweep(janitor, in_s=TTL_S + 90)
    assert names(files) == []
    assert metrics.registry.get_sample_value("triptych_results_expired_total") == 1


def test_images_of_all_formats_go_alike(files: ImageFiles, janitor: FileJanitor) -> None:
    for index, output_format in enumerate(get_args(OutputFormat)):
        files.store(PNG, "job_1", 1, index, output_format)
    sweep(janitor, in_s=TTL_S - 10)
    assert names(files) == ["job_1-1-0.png", "job_1-1-1.jpg", "job_1-1-2.webp"]
    sweep(janitor, in_s=TTL_S + 90)
    assert names(files) == []


def test_an_image_that_another_answer_has_named_since_stays(
    files: ImageFiles, janitor: FileJanitor
) -> None:
    name = files.store(PNG, "job_1", attempt=1, index=0, output_format="png")
    os.utime(files.path(name), (0, 0))
    files.touch(name)
    sweep(janitor, in_s=TTL_S - 10)
    assert names(files) == [name]


def test_an_attempt_that_does_not_count_leaves_no_image(
    redis: Redis, records: Records, files: ImageFiles, janitor: FileJanitor
) -> None:
    job = submitted(redis)
    files.store(PNG, job.id, attempt=1, index=0, output_format="png")
    lost_and_put_back(records, job)
    claim_one(records, Task.IMAGES)
    second = files.store(PNG, job.id, attempt=2, index=0, output_format="png")
    sweep(janitor)
    assert names(files) == [second]


def test_a_job_that_has_no_result_leaves_no_image(
    redis: Redis, records: Records, files: ImageFiles, janitor: FileJanitor
) -> None:
    job = submitted(redis)
    claim_one(records, Task.IMAGES)
    files.store(PNG, job.id, attempt=1, index=0, output_format="png")
    sweep(janitor)
    assert len(names(files)) == 1
    records.finish([Finished(job.id, 1, JobState.CANCELED)])
    sweep(janitor)
    assert names(files) == []


def test_a_run_that_its_first_client_left_to_another_keeps_its_images(
    http: httpx.Client, records: Records, files: ImageFiles, janitor: FileJanitor
) -> None:
    body, headers = {"prompt": "x", "seed": 7}, {"prefer": "respond-async"}
    first, second = (http.post(ROUTE, json=body, headers=headers).json()["id"] for _ in range(2))
    claim_one(records, Task.IMAGES)
    records.cancel(first)
    name = files.store(PNG, first, attempt=1, index=0, output_format="png")
    sweep(janitor)
    assert names(files) == [name], "it is being painted"
    finished_with_an_image(records, files, first)
    sweep(janitor, in_s=10 * TTL_S)
    [item] = http.get(f"/v1/jobs/{second}").json()["result"]["data"]
    assert f"/{name}?" in item["url"]
    assert names(files) == [name]


def test_an_attempt_that_redis_has_lost_keeps_its_image(
    redis: Redis, files: ImageFiles, janitor: FileJanitor
) -> None:
    """Its job runs again under the same number, and may have stored it again already."""
    job = submitted(redis)
    name = files.store(PNG, job.id, attempt=1, index=0, output_format="png")
    sweep(janitor, in_s=10 * TTL_S)
    assert names(files) == [name]


def test_half_a_file_stays_while_its_writer_may_live(
    redis: Redis, records: Records, janitor: FileJanitor, tmp_path: Path
) -> None:
    job = submitted(redis)
    claim_one(records, Task.IMAGES)
    path = half_written(tmp_path / "images", f"{job.id}-1-0.png")
    sweep(janitor, in_s=10 * TTL_S)
    assert path.exists()


def test_half_a_file_goes_soon_after_its_writer_was_lost(
    redis: Redis, records: Records, janitor: FileJanitor, tmp_path: Path
) -> None:
    job = submitted(redis)
    lost_and_put_back(records, job)
    path = half_written(tmp_path / "images", f"{job.id}-1-0.png")
    sweep(janitor)
    assert path.exists(), "its writer may be at its last bytes"
    sweep(janitor, in_s=10)
    assert not path.exists()


@pytest.mark.parametrize("name", ["start/job_1.start", "job_1-1-0.png"])
def test_half_a_file_of_no_job_goes_after_a_minute(
    janitor: FileJanitor, tmp_path: Path, name: str
) -> None:
    path = half_written(tmp_path / "images", name)
    sweep(janitor, in_s=30)
    assert path.exists()
    sweep(janitor, in_s=90)
    assert not path.exists()


def test_a_round_looks_at_so_many_files_and_the_next_goes_on(
    files: ImageFiles, janitor: FileJanitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_janitor, "_FILES_A_ROUND", 2)
    for index in range(5):
        files.store(PNG, "job_1", attempt=1, index=index, output_format="png")
    left = []
    for _ in range(3):
        sweep(janitor, in_s=TTL_S + 90)
        left.append(len(names(files)))
    assert left == [3, 1, 0]


def test_what_the_files_take_is_measured(
    redis: Redis, records: Records, files: ImageFiles, janitor: FileJanitor, metrics: Metrics
) -> None:
    painted(records, files, submitted(redis))
    with_start_image(redis, files)
    sweep(janitor)
    used = metrics.registry.get_sample_value("triptych_result_store_used_bytes")
    assert used == 2 * len(PNG)


def test_a_vanished_directory_is_an_empty_one(
    files: ImageFiles, janitor: FileJanitor, tmp_path: Path
) -> None:
    files.store(PNG, "job_1", attempt=1, index=0, output_format="png")
    sweep(janitor)
    shutil.rmtree(tmp_path / "images")
    sweep(janitor)
    files.store(PNG, "job_2", attempt=1, index=0, output_format="png")
    sweep(janitor)
    sweep(janitor, in_s=TTL_S + 90)
    assert names(files) == []


def test_one_of_two_has_the_turn_until_it_is_silent(
    redis: Redis, records: Records, files: ImageFiles
) -> None:
    first, second = (FileJanitor(redis, records, files, Metrics(), TTL_S) for _ in range(2))
    turns = [first.has_turn(), second.has_turn(), first.has_turn(), second.has_turn()]
    assert turns == [True, False, True, False]
    assert redis.pttl("triptych:janitor") > 0
    redis.delete("triptych:janitor")  # as it does by itself
    assert [second.has_turn(), first.has_turn()] == [True, False]


@pytest.fixture
def full_redis(redis: Redis) -> Iterator[Redis]:
    redis.config_set("maxmemory", "1mb")
    yield redis
    redis.config_set("maxmemory", "0")


def test_where_redis_takes_no_writes_everyone_has_the_turn(
    full_redis: Redis, records: Records, files: ImageFiles
) -> None:
    """The files may be what fills its disk."""
    janitors = [FileJanitor(full_redis, records, files, Metrics(), TTL_S) for _ in range(2)]
    assert [janitor.has_turn() for janitor in janitors] == [True, True]


def test_the_service_removes_what_is_over_by_itself(
    http: httpx.Client, worker: TestWorker, data_dir: Path
) -> None:
    http.post(ROUTE, json={"prompt": "x", "image": PNG_BASE64}).raise_for_status()
    [job] = worker.jobs
    start_image = data_dir / "images" / "start" / f"{job.id}.start"
    wait_for(lambda: not start_image.exists(), timeout_s=30)  # some rounds, of 2 s each


@pytest.mark.usefixtures("redis")
def test_a_full_queue_leaves_no_start_image(settings: ServiceSettings, tmp_path: Path) -> None:
    app = create_app(settings.model_copy(update={"max_queue_depth": 1, "data_dir": tmp_path}))
    with serve(app) as url:
        httpx.post(f"{url}{ROUTE}", json={"prompt": "x"}, headers={"prefer": "respond-async"})
        response = httpx.post(f"{url}{ROUTE}", json={"prompt": "x", "image": PNG_BASE64})
    assert error_of(response, 429)["code"] == "queue_full"
    assert list((tmp_path / "images" / "start").iterdir()) == []
