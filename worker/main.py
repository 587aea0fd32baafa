"""One worker process: settings in, a loop over one queue until a signal ends it.

Opens everything in order and closes it in reverse. `run` takes what loads the models, so that tests
can bring their own.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NoReturn

import torch
from redis.exceptions import RedisError

from models.errors import PresetError
from worker.classify import ClassifyTask
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import Task
from worker.contract.log_lines import write_logs
from worker.contract.records import Records
from worker.contract.tracing import open_tracing
from worker.contract.workers import ModelState, ServedModel, WorkerState, WorkerStatus
from worker.device_memory import Memory, memory_of
from worker.embeddings import EmbeddingsTask
from worker.gpu_metrics import gpu_collectors
from worker.gpu_worker import GpuWorker
from worker.heartbeat import Heartbeat
from worker.host_memory import give_back_free_memory, keep_freed_memory
from worker.image_engine import ImageWork
from worker.job_selection import JobSelection
from worker.jobs_in_hand import JobsInHand
from worker.loading import ModelLoader
from worker.metrics import WorkerMetrics
from worker.metrics_server import MetricsServer
from worker.model_specs import ModelSpec
from worker.reaper import Reaper
from worker.redis_clients import connect, connect_impatient, is_unavailable, until_available
from worker.residency import Loader, Residency
from worker.row_work import RowWork
from worker.settings import WorkerSettings, new_worker_name
from worker.swap_policy import SwapPolicy
from worker.watchdog import Watchdog
from worker.work import Settle, Work

logger = logging.getLogger(__name__)


def main(settings: WorkerSettings) -> None:
    """Serve one queue until a signal; exits 0 after a drain, 1 after anything else."""
    write_logs(settings.log_format)
    # its every job is logged by us already; RQ sets this level itself when it is imported
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    try:
        device = _device(settings.device)
        if device != "cpu":
            torch.cuda.set_device(device)  # pinned memory would open a context on the first one
        memory = memory_of(device, settings)
        leave(run(settings, ModelLoader(device, memory, settings.max_batch), memory))
    except PresetError as error:
        logger.error("event=model_unknown reason=%s", error)
        sys.exit(1)
    except RedisError as error:
        if not is_unavailable(error):
            raise
        logger.error("event=redis_unavailable reason=%s", error)
        sys.exit(1)


def leave(code: int) -> NoReturn:
    """End at once: the threads of a download that is under way would go on to its end."""
    logging.shutdown()
    os._exit(code)


def run(settings: WorkerSettings, loader: Loader[Any], memory: Memory) -> int:
    """Open everything, work, close everything; returns the exit code.

    Raises PresetError for a checkpoint of which not even the task can be told.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the loop installs its own
    specs = settings.specs_of_queue()
    keep_freed_memory()
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    name = settings.worker_name or new_worker_name(settings.queue)
    tracing = open_tracing("triptych-worker", name, os.environ)
    metrics = WorkerMetrics(settings.queue, [spec.name for spec in specs], tracing)
    if (device := _device(settings.device)) != "cpu":
        for collector in gpu_collectors(device):
            metrics.registry.register(collector)
    with ExitStack() as stack:
        stack.callback(tracing.close)
        # between two steps; for threads beside the loop; and for its wait for jobs, of 5 s at most
        redis = stack.enter_context(connect_impatient(settings.redis_url))
        side_redis = stack.enter_context(connect(settings.redis_url, timeout_s=3.0))
        idle_redis = stack.enter_context(connect(settings.redis_url, timeout_s=15.0))
        side_records = Records(side_redis, settings.result_ttl_s, int(settings.result_cache_bytes))
        heartbeat = Heartbeat(side_redis, _status(settings, name, specs), settings.heartbeat_s)
        publish_metrics(settings, metrics, heartbeat, stack)
        stack.callback(heartbeat.stop)  # before the start, where a signal may come in between
        until_available(heartbeat.start)
        records = Records(redis, settings.result_ttl_s, int(settings.result_cache_bytes))
        policy = SwapPolicy(settings.swap_patience_s, settings.load_retry_s)
        residency = Residency(specs, loader, metrics, heartbeat, memory, policy)
        jobs = JobsInHand(records, side_records, metrics, heartbeat.name, settings.lease_s)
        heartbeat.also(jobs.renew)
        heartbeat.also(jobs.write_endings)
        work = build_work(settings, residency, records, jobs.settle, metrics)
        residency.before_ready(work.warm_up)
        heartbeat.also(lambda: _rest(work))
        selection = JobSelection(redis, Records(idle_redis), jobs, settings.queue, residency)
        grace_s = settings.drain_grace_s
        worker = until_available(  # RQ asks the server for its version
            lambda: GpuWorker(redis, work, jobs, selection, heartbeat, grace_s)
        )
        watchdog = Watchdog(settings.hang_s, work.pieces)
        watchdog.start()
        stack.callback(watchdog.stop)
        reaper = Reaper(side_redis, side_records, metrics, settings.max_attempts, settings.lease_s)
        reaper.start()
        stack.callback(reaper.stop)
        worker.serve()  # models are loaded between its turns
        return 0 if worker.was_asked_to_stop and not worker.has_failed else 1


def build_work(
    settings: WorkerSettings,
    residency: Residency[Any],
    records: Records,
    settle: Settle,
    metrics: WorkerMetrics,
) -> Work:
    """The work of the queue; the residency holds the pipelines of its task."""
    match settings.queue:
        case Task.IMAGES:
            files = ImageFiles(settings.data_dir / "images")
            return ImageWork(residency, records, files, settle, metrics, settings.text_cache_bytes)
        case Task.CLASSIFY:
            classify = ClassifyTask(residency, metrics)
            return RowWork(settings.queue, classify, settings.max_batch, settle, metrics)
        case Task.EMBEDDINGS:
            embeddings = EmbeddingsTask(residency, metrics)
            return RowWork(settings.queue, embeddings, settings.max_batch, settle, metrics)


def publish_metrics(
    settings: WorkerSettings, metrics: WorkerMetrics, heartbeat: Heartbeat, stack: ExitStack
) -> None:
    """Serve them until the stack unwinds, or go on without where their port is taken."""
    if settings.metrics_port is None:
        return
    host, port = settings.metrics_host, settings.metrics_port
    try:
        server = MetricsServer(host, port, metrics.registry, lambda: heartbeat.is_fresh)
    except OSError as error:  # measuring must not keep us from serving
        logger.warning("event=metrics_unavailable host=%s port=%d reason=%s", host, port, error)
        return
    stack.callback(server.close)


def _rest(work: Work) -> None:
    """Give back what the last work left; amid work it would be asked for again at once."""
    if work.is_idle:
        give_back_free_memory()


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _status(settings: WorkerSettings, name: str, specs: Sequence[ModelSpec]) -> WorkerStatus:
    host = socket.gethostname()
    return WorkerStatus(
        name=name,
        task=settings.queue,
        state=WorkerState.LOADING,
        pid=os.getpid(),
        host=host,
        device=_device(settings.device),
        models=tuple(
            ServedModel(name=spec.name, aliases=spec.aliases, state=ModelState.LOADING)
            for spec in specs
        ),
        started_at=time.time(),
        heartbeat_at=time.time(),
    )
