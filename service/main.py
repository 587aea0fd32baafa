"""The service process: builds the app, opens its parts, serves it.

`create_app` does no I/O; the lifespan opens Redis and the listener and closes them in reverse. The
process starts, and answers 503, without Redis: it waits for it as for its workers.
"""

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from service import error_handlers
from service.catalog import Catalog
from service.dependencies import Parts
from service.events import MAX_FOLLOWERS, SILENCE_S, JobEvents
from service.file_janitor import FileJanitor
from service.job_changes import JobChanges
from service.job_client import JobClient
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from service.queue_stats import QueueCollector
from service.redis_health import PROBE_TIMEOUT_S, RedisHealth
from service.routes import classify, embeddings, events, files, health, images, jobs, models
from service.settings import ServiceSettings
from worker.contract.image_files import ImageFiles
from worker.contract.records import Records

_REDIS_TIMEOUT_S = 5.0
_ENCODING_ERRORS = "backslashreplace"  # a stranger's bytes are a name nobody knows, no failed read

# Once, at once: for a pooled connection that a restart broke. No silence is waited for twice.
_RETRY = Retry(NoBackoff(), 1, (RedisConnectionError,))
_ASYNC_RETRY = AsyncRetry(NoBackoff(), 1, (RedisConnectionError,))

# Longer than clients keep an idle connection (httpx and the openai client: 5 s): the client closes
# it, never the server under a request that is on its way.
_KEEP_ALIVE_S = 75

_LAST_WORDS_S = 5  # after the grace: to write the answers of those who waited


def create_app(settings: ServiceSettings) -> FastAPI:
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _open_parts(settings, metrics) as parts:
            app.state.parts = parts
            yield

    app = FastAPI(
        title="Triptych",
        summary="Paints, sees and reads: FLUX images, ViT classification, FNet embeddings.",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
    )
    app.add_middleware(RequestMiddleware, metrics=metrics, max_body_bytes=settings.max_body_bytes)
    error_handlers.install(app)
    for module in (images, files, classify, embeddings, jobs, events, models, health):
        app.include_router(module.router)
    return app


@dataclass(frozen=True, slots=True)
class _RedisClients:
    """One for each way of waiting: they differ in their timeouts, and no one holds up another."""

    commands: AsyncRedis
    following: AsyncRedis  # a blocking read for each follower of a job
    probing: AsyncRedis
    blocking: Redis  # for threads


@asynccontextmanager
async def _redis_clients(url: str) -> AsyncIterator[_RedisClients]:
    commands = AsyncRedis.from_url(
        url,
        decode_responses=True,
        encoding_errors=_ENCODING_ERRORS,
        socket_timeout=_REDIS_TIMEOUT_S,
        retry=_ASYNC_RETRY,
    )
    following = AsyncRedis.from_url(
        url,
        decode_responses=True,
        encoding_errors=_ENCODING_ERRORS,
        max_connections=2 * MAX_FOLLOWERS,  # each has a blocking read, or a short one
        socket_timeout=_REDIS_TIMEOUT_S + SILENCE_S,  # its reads block for a silence
        retry=_ASYNC_RETRY,
    )
    probing = AsyncRedis.from_url(
        url, socket_timeout=PROBE_TIMEOUT_S, retry=AsyncRetry(NoBackoff(), 0)
    )
    blocking = Redis.from_url(
        url,
        decode_responses=True,
        encoding_errors=_ENCODING_ERRORS,
        socket_timeout=_REDIS_TIMEOUT_S,
        retry=_RETRY,
    )
    async with commands, following, probing:
        with blocking:
            yield _RedisClients(commands, following, probing, blocking)


@asynccontextmanager
async def _open_parts(settings: ServiceSettings, metrics: Metrics) -> AsyncIterator[Parts]:
    async with _redis_clients(settings.redis_url) as redis:
        parts = _parts(settings, metrics, redis)
        records = Records(redis.blocking, settings.result_ttl_s)
        janitor = FileJanitor(
            redis.blocking, records, parts.image_files, metrics, settings.result_ttl_s
        )
        metrics.registry.register(QueueCollector(redis.blocking))
        in_background = [
            asyncio.create_task(parts.catalog.keep_fresh()),
            asyncio.create_task(parts.jobs.listen()),
            asyncio.create_task(parts.job_changes.run()),
            asyncio.create_task(parts.redis_health.watch(parts.jobs.wake_all)),
            asyncio.create_task(janitor.run()),
        ]
        try:
            yield parts
        finally:
            for task in in_background:
                task.cancel()
            await asyncio.wait(in_background)
            await parts.job_changes.send()  # of those who left, or were told to come back, at last


def _parts(settings: ServiceSettings, metrics: Metrics, redis: _RedisClients) -> Parts:
    health, ttl_s = RedisHealth(redis.probing), settings.result_ttl_s
    changes = JobChanges(redis.commands, health, ttl_s)
    job_client = JobClient(redis.commands, health, changes, settings.max_queue_depth, ttl_s)
    return Parts(
        settings=settings,
        catalog=Catalog(redis.blocking, health, settings.tasks),
        metrics=metrics,
        image_files=ImageFiles(settings.data_dir / "images"),
        jobs=job_client,
        job_changes=changes,
        events=JobEvents(redis.following, job_client),
        redis_health=health,
        blocking_redis=redis.blocking,
        started_at=int(time.time()),
    )


class Server(uvicorn.Server):
    """On SIGTERM, who waits for a job gets the grace, then a 504; who follows one leaves at once.

    A follower goes on elsewhere from its last event, and loses nothing.
    """

    def __init__(self, app: FastAPI, settings: ServiceSettings) -> None:
        grace_s = settings.drain_grace_s
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                timeout_graceful_shutdown=grace_s + _LAST_WORDS_S,
                timeout_keep_alive=_KEEP_ALIVE_S,
                access_log=False,  # RequestMiddleware writes it, with route, time and id
                server_header=False,
            )
        )
        self._app = app
        self._grace_s = grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        parts: Parts = self._app.state.parts
        loop = asyncio.get_running_loop()
        parts.events.stop()
        end = loop.call_later(self._grace_s, parts.jobs.stop_waiting)
        await super().shutdown(sockets)
        end.cancel()


def main(settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and exit with 0."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # uvicorn raises the signal again once it has drained: an end as asked for is no failure
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    Server(create_app(settings), settings).run()


if __name__ == "__main__":
    main(ServiceSettings())
