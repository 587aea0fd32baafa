"""A real uvicorn with the real app on the embedded Valkey, and a worker small enough for a test.

The worker takes jobs from the real queues and ends them through `Records.claim` and `finish`; what
it answers is the test's. Real worker processes are tested in `tests/end_to_end`.
"""

import base64
import faulthandler
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from redis import Redis

from service.http_protocol import HttpProtocol
from service.main import create_app
from service.settings import ServiceSettings
from tests.cards import SHAPES, publish
from tests.claims import claim_one
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import (
    ClassifyJob,
    ClassifyResult,
    EmbeddingsResult,
    Image,
    ImageJob,
    ImageResult,
    Prediction,
    Task,
)
from worker.contract.record import AnyJob, Outcome, Record
from worker.contract.records import Finished, Preview, Records, StepReport

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PREVIEW = PNG[:16] + struct.pack(">2I", 16, 8) + PNG[24:]  # it says that it is 16x8
PNG_BASE64 = base64.b64encode(PNG).decode("ascii")
EMBEDDING = (1.0, *(0.0,) * 127)


@dataclass
class TestWorker:
    """Ends each job with what `answer` makes of it; None leaves the job running."""

    __test__ = False

    redis: Redis
    image_files: ImageFiles
    answer: Callable[[AnyJob, int], Outcome | None] | None = None
    jobs: list[AnyJob] = field(default_factory=list)  # as they came
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with ThreadPoolExecutor(len(Task)) as pool:
            list(pool.map(self._serve, Task))

    def _serve(self, task: Task) -> None:
        records = Records(self.redis)
        while not self._stop.is_set():
            waits = records.await_jobs(task, 0.01)
            record = claim_one(records, task, worker=f"{task}-0") if waits else None
            if record is not None:
                self._run_one(records, record)

    def _run_one(self, records: Records, record: Record) -> None:
        self.jobs.append(record.job)
        if isinstance(record.job, ImageJob):
            records.report(list(_previews(record.job, record.attempt)))
        answer = self.answer or self.default_answer
        outcome = answer(record.job, record.attempt)
        if outcome is not None:
            records.finish([Finished(record.id, record.attempt, outcome)])

    def default_answer(self, job: AnyJob, attempt: int) -> Outcome:
        if isinstance(job, ImageJob):
            return self._images(job, attempt)
        if isinstance(job, ClassifyJob):
            best = tuple(
                Prediction(label=f"label {i}", class_id=i, score=1 / (i + 2))
                for i in range(job.top_k)
            )
            return ClassifyResult(predictions=(best,) * len(job.images))
        encoded = [
            base64.b64encode(struct.pack("<128f", float(len(text)), *EMBEDDING[1:])).decode()
            for text in job.texts
        ]
        return EmbeddingsResult(embeddings=tuple(encoded), num_tokens=7 * len(encoded))

    def _images(self, job: ImageJob, attempt: int) -> ImageResult:
        images = tuple(
            Image(
                file_name=self.image_files.store(PNG, job.id, attempt, index, job.output_format),
                seed=seed,
                width=job.width,
                height=job.height,
                num_bytes=len(PNG),
            )
            for index, seed in enumerate(job.seeds)
        )
        patches = job.width * job.height // 256 * len(images)
        return ImageResult(
            images=images,
            num_text_tokens=9,
            is_prompt_truncated=False,
            num_patches=patches,
        )

    def stop(self) -> None:
        self._stop.set()


def _previews(job: ImageJob, attempt: int) -> Iterator[StepReport]:
    for step in job.preview_steps:
        previews = tuple(Preview(index, step, PREVIEW) for index in range(len(job.seeds)))
        yield StepReport(job.id, attempt, step, job.num_steps, 1.5, previews)


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Run the app in a real server on a free port; the value is its address."""
    config = uvicorn.Config(app, port=0, http=HttpProtocol, log_config=None, access_log=False)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        in_a_thread(uvicorn.Server(config), [listener]),
    ):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def in_a_thread(server: uvicorn.Server, sockets: list[socket.socket] | None) -> Iterator[None]:
    """Run a server, which is to have ended at the end; the process ends even where it hangs."""
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield
    finally:
        server.should_exit = True
        thread.join(60)
        if thread.is_alive():
            faulthandler.dump_traceback()
            raise AssertionError("the server hangs at its end: see the stacks of its threads")


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def redis(redis: Redis) -> Redis:
    """The emptied server with the bundled presets' cards."""
    publish(redis, *SHAPES)
    return redis


@pytest.fixture(scope="session")
def settings(redis_url: str, data_dir: Path) -> ServiceSettings:
    return ServiceSettings(
        redis_url=redis_url, data_dir=data_dir, drain_grace_s=1, tasks=frozenset(Task)
    )


@pytest.fixture(scope="package")  # its background work would reach into the tests of others
def service_url(settings: ServiceSettings) -> Iterator[str]:
    with serve(create_app(settings)) as url:
        yield url


@pytest.fixture
def http(service_url: str, redis: Redis) -> Iterator[httpx.Client]:  # noqa: ARG001
    """A client of the service, with its Redis emptied."""
    with httpx.Client(base_url=service_url, timeout=20) as client:
        yield client


@pytest.fixture
def worker(redis: Redis, data_dir: Path) -> Iterator[TestWorker]:
    worker = TestWorker(redis, ImageFiles(data_dir / "images"))
    thread = threading.Thread(target=worker.run)
    thread.start()
    yield worker
    worker.stop()
    thread.join()


def error_of(response: httpx.Response, status: int) -> dict[str, str | None]:
    """The error of an enveloped answer, with all four keys."""
    assert response.status_code == status, response.text
    error: dict[str, str | None] = response.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    return error
