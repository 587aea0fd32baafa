"""One worker process: settings in, a loop over one queue until a signal ends it.

Opens everything in order and closes it in reverse. `run` takes the function that loads pipelines,
so that tests can bring their own.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import TypeAlias, cast

import torch
from prometheus_client import start_http_server
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from models.errors import PresetError
from models.load import load_pipeline
from worker.classify import Classifier, ClassifyTask
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import Task
from worker.contract.records import Records
from worker.contract.workers import WorkerState, WorkerStatus
from worker.embeddings import Embedder, EmbeddingsTask
from worker.gpu_worker import GpuWorker
from worker.heartbeat import Heartbeat
from worker.images import ImagePipeline, ImageWork
from worker.metrics import WorkerMetrics
from worker.reaper import Reaper
from worker.residency import Residency
from worker.row_work import RowWork
from worker.settings import WorkerSettings, settings_of_process
from worker.tasks import Batches, Work

Load: TypeAlias = Callable[[str], ImagePipeline | Classifier | Embedder]

logger = logging.getLogger(__name__)


def main(settings: WorkerSettings) -> None:
    """Serve one queue until a signal; exits 0 after a drain, 1 after anything else."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # its every job is logged by us already; RQ sets this level itself when it is imported
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    device = _device(settings.device)
    try:
        sys.exit(run(settings, lambda name: load_pipeline(name, device=device)))
    except RedisConnectionError as error:
        logger.error("event=redis_unavailable reason=%s", error)
        sys.exit(1)


def run(settings: WorkerSettings, load: Load) -> int:
    """Open everything, work, close everything; returns the exit code."""
    signal.signal(signal.SIGTERM, _stop_loading)  # until the loop installs its own
    names = settings.served_models
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    metrics = WorkerMetrics()
    with ExitStack() as stack:
        # two pools: the blocking wait for jobs needs a timeout that is too long for heartbeats
        redis = stack.enter_context(_connect(settings.redis_url, timeout_s=None))
        side_redis = stack.enter_context(_connect(settings.redis_url, timeout_s=5.0))
        if settings.metrics_port is not None:
            server, _ = start_http_server(
                settings.metrics_port, settings.metrics_host, metrics.registry
            )
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
        side_records = Records(side_redis, settings.result_ttl_s)
        heartbeat = Heartbeat(
            side_redis,
            side_records,
            _status(settings, names),
            lease_s=settings.lease_s,
            interval_s=settings.heartbeat_s,
        )
        heartbeat.start()
        stack.callback(heartbeat.stop)
        records = Records(redis, settings.result_ttl_s)
        work = build_work(settings, names, load, records, metrics)
        if not _warm_up(work, names[0]):
            return 1
        batches = Batches(work, records, heartbeat, metrics)
        worker = GpuWorker(redis, batches, heartbeat, max_jobs=_max_jobs(settings))
        reaper = Reaper(side_redis, side_records, metrics, settings.max_attempts, settings.lease_s)
        reaper.start()
        stack.callback(reaper.stop)
        heartbeat.announce(WorkerState.IDLE)
        worker.work(logging_level=None)
        return 0 if worker.was_asked_to_stop else 1


def build_work(
    settings: WorkerSettings,
    names: tuple[str, ...],
    load: Load,
    records: Records,
    metrics: WorkerMetrics,
) -> Work:
    # the casts hold because every name belongs to the queue's task (`served_models`)
    match settings.queue:
        case Task.IMAGES:
            pipelines = Residency(names, cast(Callable[[str], ImagePipeline], load), metrics)
            files = ImageFiles(settings.data_dir / "images")
            return ImageWork(pipelines, records, files, metrics)
        case Task.CLASSIFY:
            classifiers = Residency(names, cast(Callable[[str], Classifier], load), metrics)
            classify = ClassifyTask(classifiers, metrics)
            return RowWork(settings.queue, classify, settings.max_batch, metrics)
        case Task.EMBEDDINGS:
            embedders = Residency(names, cast(Callable[[str], Embedder], load), metrics)
            embeddings = EmbeddingsTask(embedders, metrics)
            return RowWork(settings.queue, embeddings, settings.max_batch, metrics)


def _warm_up(work: Work, model: str) -> bool:
    """False, with the reason in the log, for a preset that cannot be used."""
    try:
        work.warm_up(model)
    except PresetError as error:
        logger.error("event=model_unusable model=%s reason=%s", model, error)
        return False
    return True


def _max_jobs(settings: WorkerSettings) -> int:
    """Image jobs run one at a time: all seeds of one share its steps, and cancels stay prompt."""
    return 1 if settings.queue is Task.IMAGES else settings.max_batch


def _connect(url: str, timeout_s: float | None) -> Redis:
    """A client that outlives a restart of the server: 10 tries over some 8 seconds."""
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), retries=10)
    return Redis.from_url(url, retry=retry, socket_timeout=timeout_s, socket_connect_timeout=5.0)


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _status(settings: WorkerSettings, names: tuple[str, ...]) -> WorkerStatus:
    host = socket.gethostname()
    return WorkerStatus(
        name=f"{settings.queue}-{host}-{os.getpid()}-{secrets.token_hex(2)}",
        task=settings.queue,
        state=WorkerState.LOADING,
        pid=os.getpid(),
        host=host,
        device=_device(settings.device),
        models=names,
        started_at=time.time(),
        heartbeat_at=time.time(),
    )


def _stop_loading(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """A signal before the first job: nothing to finish, so leave as if drained."""
    raise SystemExit(0)


if __name__ == "__main__":
    main(settings_of_process())
