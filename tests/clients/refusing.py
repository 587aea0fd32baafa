"""Two apps that refuse in every way there is, and the calls that they refuse.

The one has a worker that ends each job as its prompt says; the other's queue of images is full, and
it has no worker for embeddings. Both count how often each call was tried.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx
from redis import Redis
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.running_service import scratch_redis
from service.main import create_app
from service.settings import ServiceSettings
from tests.cards import SHAPES, publish
from tests.service.conftest import TestWorker, serve
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import Failure, FailureCode, ImageJob, JobState, Task
from worker.contract.record import AnyJob, Outcome

_IMAGES = "/v1/images/generations"
_MAX_BODY_BYTES = 64 * 1024

_OUTCOMES: Mapping[str, Outcome] = {
    "fails": Failure(code=FailureCode.INTERNAL, message="a bug"),
    "needs too much memory": Failure(code=FailureCode.GPU_OOM, message="out of memory"),
    "is canceled": JobState.CANCELED,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call, how its error looks to the client, and how often the client tries it.

    Clients are told to try again once.
    """

    name: str
    error: str  # the class, which has one name in both clients where it has one
    status: int
    code: str
    num_attempts: int
    body: Mapping[str, object]
    resource: Literal["images", "embeddings"] = "images"
    headers: Mapping[str, str] = field(default_factory=dict)
    is_of_full_app: bool = False

    @property
    def method(self) -> str:
        return {"images": "generate", "embeddings": "create"}[self.resource]

    def request_id(self, client: str) -> str:
        return f"{client}:{self.name.replace(' ', '-')}"


REFUSALS = (
    Refusal("a wrong value", "BadRequestError", 400, "invalid_value", 1,
            {"prompt": "x", "size": "100x100"}),
    Refusal("an unknown model", "NotFoundError", 404, "model_not_found", 1,
            {"prompt": "x", "model": "gpt-9"}),
    Refusal("a job that another call cancels", "ConflictError", 409, "job_canceled", 1,
            {"prompt": "is canceled"}),
    Refusal("a body that is too large", "APIStatusError", 413, "payload_too_large", 1,
            {"prompt": "x", "image": "A" * _MAX_BODY_BYTES}),
    Refusal("a key of another request", "UnprocessableEntityError", 422, "idempotency_key_reused",
            1, {"prompt": "another"}, headers={"Idempotency-Key": "used"}),
    Refusal("a full queue", "RateLimitError", 429, "queue_full", 2,
            {"prompt": "x"}, is_of_full_app=True),
    Refusal("a job that fails", "InternalServerError", 500, "internal_error", 1,
            {"prompt": "fails"}),
    Refusal("a device without memory", "InternalServerError", 500, "gpu_oom", 2,
            {"prompt": "needs too much memory"}),
    Refusal("a task without a worker", "InternalServerError", 503, "no_workers", 2,
            {"input": "x", "model": "f_net_shapes"}, "embeddings", is_of_full_app=True),
    Refusal("a wait that is over", "InternalServerError", 504, "sync_wait_timeout", 1,
            {"prompt": "never ends"}, headers={"Prefer": "wait=0"}),
)  # fmt: skip


class _CountAttempts:
    """Count the requests of each call, which its `X-Request-ID` names."""

    def __init__(self, app: ASGIApp, attempts: Counter[str]) -> None:
        self._app = app
        self._attempts = attempts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._attempts[Headers(scope=scope).get("x-request-id", "")] += 1
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Refusing:
    """Where the apps are, and how often each call was tried."""

    url: str
    full_url: str
    attempts: Counter[str]

    def url_for(self, refusal: Refusal) -> str:
        return self.full_url if refusal.is_of_full_app else self.url


@contextmanager
def refusing(data_dir: Path) -> Iterator[Refusing]:
    attempts: Counter[str] = Counter()
    with _serving(data_dir / "one", attempts, max_body_bytes=_MAX_BODY_BYTES) as (url, redis):
        publish(redis, *SHAPES)
        httpx.post(url + _IMAGES, json={"prompt": "x"}, headers=_asynchronous("used"))
        with (
            _ending_jobs(redis, data_dir / "one"),
            _serving(data_dir / "full", attempts, max_queue_depth=1) as (full_url, full_redis),
        ):
            publish(full_redis, SHAPES[0])
            httpx.post(full_url + _IMAGES, json={"prompt": "x"}, headers=_asynchronous("first"))
            yield Refusing(url, full_url, attempts)


def _asynchronous(key: str) -> Mapping[str, str]:
    return {"Prefer": "respond-async", "Idempotency-Key": key}


@contextmanager
def _serving(
    data_dir: Path, attempts: Counter[str], **settings: object
) -> Iterator[tuple[str, Redis]]:
    with scratch_redis() as server:
        own = {"redis_url": server.connection_url, "data_dir": data_dir, "tasks": frozenset(Task)}
        app = create_app(ServiceSettings.model_validate({**own, **settings}))
        app.add_middleware(_CountAttempts, attempts=attempts)
        with serve(app) as url, Redis.from_url(server.connection_url) as redis:
            yield url, redis


@contextmanager
def _ending_jobs(redis: Redis, data_dir: Path) -> Iterator[None]:
    def answer(job: AnyJob, _attempt: int) -> Outcome | None:
        assert isinstance(job, ImageJob), "this is a bug: no other jobs are submitted"
        return _OUTCOMES.get(job.prompt)

    worker = TestWorker(redis, ImageFiles(data_dir / "images"), answer)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()
