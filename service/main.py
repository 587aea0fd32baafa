"""The service process: builds the app, opens its parts, serves it.

`create_app` does no I/O; the lifespan opens Redis and the listener and closes them in reverse. The
process starts, and answers 503, without Redis: it waits for it as for its workers.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from service import error_handlers, shared_counts
from service.api_description import DESCRIPTION, SERVERS, TAGS, DescribedApp, operation_id
from service.background import end
from service.bursts import BurstLimiter
from service.catalog import Catalog
from service.dependencies import Parts
from service.event_loop import EventLoopMonitor
from service.events import MAX_FOLLOWERS, SILENCE_S, JobEvents
from service.file_janitor import FileJanitor
from service.head_requests import HeadMiddleware
from service.job_changes import JobChanges
from service.job_client import JobClient
from service.job_list import JobList
from service.metrics import DiskCollector, Metrics
from service.middleware import RequestMiddleware
from service.queue_stats import QueueCollector
from service.redis_health import PROBE_TIMEOUT_S, RedisHealth
from service.round_trips import RoundTrips
from service.routes import (
    classify,
    embeddings,
    events,
    files,
    health,
    hugging_face,
    images,
    jobs,
    models,
    playground,
    tei,
)
from service.server import Server, prepare
from service.settings import ServiceSettings
from service.signed_urls import SignedUrls
from worker.contract.image_files import ImageFiles
from worker.contract.log_lines import write_logs
from worker.contract.records import Records
from worker.contract.tracing import NO_TRACING, Tracing, open_tracing

_REDIS_TIMEOUT_S = 5.0
_ENCODING_ERRORS = "backslashreplace"  # a stranger's bytes are a name nobody knows, no failed read

# Once, at once: for a pooled connection that a restart broke. No silence is waited for twice.
_RETRY = Retry(NoBackoff(), 1, (RedisConnectionError,))
_ASYNC_RETRY = AsyncRetry(NoBackoff(), 1, (RedisConnectionError,))

# FastAPI's own spans and logs, which would say what is in a body that is not valid
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}

_COMM = Path("/proc/self/comm")  # what `ps -e` and `top` show; there is none but on Linux


def create_app(settings: ServiceSettings, tracing: Tracing = NO_TRACING) -> FastAPI:
    metrics, bursts = Metrics(), BurstLimiter()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _open_parts(settings, metrics, bursts) as parts:
            app.state.parts = parts
            yield

    app = DescribedApp(
        title="Triptych",
        summary="Paints, sees and reads: FLUX images, ViT classification, FNet embeddings.",
        description=DESCRIPTION,
        version="1",
        openapi_tags=TAGS,
        servers=SERVERS,
        generate_unique_id_function=operation_id,
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
    )
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        tracing=tracing,
        bursts=bursts,
        max_body_bytes=settings.max_body_bytes,
    )
    app.add_middleware(HeadMiddleware)
    error_handlers.install(app, metrics.jobs)
    for module in (
        *(images, files, classify, embeddings, jobs, events, models),
        *(hugging_face, tei, health),
    ):
        app.include_router(module.router)
    if settings.playground:
        app.include_router(playground.router_of(settings.grafana_url))
    return app


@dataclass(frozen=True, slots=True)
class _RedisClients:
    """One for each way of waiting: they differ in their timeouts, and no one holds up another."""

    commands: AsyncRedis
    # Through `commands`: those of requests, and a hundred changes at once, which nobody waits for.
    requests: RoundTrips
    changes: RoundTrips
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
    async with (
        commands,
        following,
        probing,
        aclosing(RoundTrips(commands)) as requests,
        aclosing(RoundTrips(commands)) as changes,
    ):
        with blocking:
            yield _RedisClients(commands, requests, changes, following, probing, blocking)


@asynccontextmanager
async def _open_parts(
    settings: ServiceSettings, metrics: Metrics, bursts: BurstLimiter
) -> AsyncIterator[Parts]:
    async with _redis_clients(settings.redis_url) as redis:
        parts = _parts(settings, metrics, bursts, redis)
        records = Records(redis.blocking, settings.result_ttl_s)
        janitor = FileJanitor(
            redis.blocking, records, parts.image_files, metrics, settings.result_ttl_s
        )
        metrics.expose(QueueCollector(redis.blocking))
        metrics.expose(DiskCollector(settings.data_dir))
        in_background = [
            asyncio.create_task(EventLoopMonitor(metrics).run()),
            asyncio.create_task(parts.catalog.keep_fresh()),
            asyncio.create_task(parts.jobs.listen()),
            asyncio.create_task(parts.job_changes.run()),
            asyncio.create_task(parts.redis_health.watch(parts.jobs.wake_all)),
            asyncio.create_task(janitor.run()),
        ]
        try:
            yield parts
        finally:
            await end(in_background)
            await parts.events.aclose()
            await parts.job_changes.send()  # of those who left, or were told to come back, at last


def _parts(
    settings: ServiceSettings, metrics: Metrics, bursts: BurstLimiter, redis: _RedisClients
) -> Parts:
    health, ttl_s = RedisHealth(redis.probing), settings.result_ttl_s
    changes = JobChanges(redis.changes, health, ttl_s)
    job_client = JobClient(redis.commands, redis.requests, health, changes, bursts, ttl_s)
    return Parts(
        settings=settings,
        catalog=Catalog(redis.blocking, health, settings.tasks, settings.openai_names),
        metrics=metrics,
        image_files=ImageFiles(settings.data_dir / "images"),
        jobs=job_client,
        job_list=JobList(redis.requests, health, job_client),
        job_changes=changes,
        events=JobEvents(redis.following, job_client, bursts),
        signed_urls=SignedUrls(redis.commands, settings.url_secret),
        redis_health=health,
        blocking_redis=redis.blocking,
        started_at=int(time.time()),
    )


def main(settings: ServiceSettings, accept_from: list[socket.socket] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and exit with 0.

    accept_from  sockets that listen already, for other processes too; None: the settings' address
    """
    write_logs(settings.log_format)
    # uvicorn raises the signal again once it has drained: an end as asked for is no failure
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    instance = f"{socket.gethostname()}-{os.getpid()}"
    tracing = open_tracing("triptych-api", instance, os.environ)
    app = create_app(settings, tracing)
    prepare(app)
    try:
        Server(app, settings).run(accept_from)
    finally:
        tracing.close()


def _main_of_several(index: int, accept_from: list[int]) -> None:
    """Serve as one of several processes, with these descriptors for sockets."""
    with suppress(OSError):
        _COMM.write_text(f"api-{index}", encoding="utf-8")
    if shared_counts.are_shared():
        shared_counts.count_as(index)
    main(ServiceSettings(), [socket.socket(fileno=each) for each in accept_from])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.main", description=__doc__)
    parser.add_argument("--index", type=int, default=0, help="of this process among the API's")
    parser.add_argument("--accept-from", type=int, nargs="+", help="descriptors of sockets")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _parse()
    if arguments.accept_from is None:
        main(ServiceSettings())
    else:
        _main_of_several(arguments.index, arguments.accept_from)
