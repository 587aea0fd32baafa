"""A worker inside the test's own process, and real ones beside it."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Protocol

import pytest
from redis import Redis
from rq.exceptions import StopRequested

from tests.worker import pipelines, tiny_worker
from worker.contract.jobs import Task
from worker.contract.record import Record
from worker.contract.records import Records
from worker.contract.workers import WorkerState, WorkerStatus, read_all
from worker.device_memory import Memory
from worker.gpu_worker import GpuWorker
from worker.heartbeat import Heartbeat
from worker.job_selection import JobSelection
from worker.jobs_in_hand import JobsInHand
from worker.main import build_work
from worker.metrics import WorkerMetrics
from worker.model_specs import ModelSpec
from worker.residency import Residency
from worker.settings import WorkerSettings
from worker.swap_policy import SwapPolicy
from worker.work import Work

RESULT_TTL_S = 1234  # of the real workers; not the default
DEADLINE_S = 60.0  # for anything to happen; reached only by a failing test
MODELS = {
    Task.IMAGES: "flux_shapes",
    Task.CLASSIFY: "vit_shapes",
    Task.EMBEDDINGS: "f_net_shapes",
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], message: str) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up_at, message
        time.sleep(0.01)


def wait_until_final(records: Records, job_id: str) -> Record:
    def is_final() -> bool:
        record = records.get(job_id)
        return record is not None and record.state.is_final

    wait_until(is_final, f"{job_id} did not end")
    record = records.get(job_id)
    assert record is not None
    return record


def commands_of(redis: Redis, run: Callable[[], object]) -> list[str]:
    """What clients sent meanwhile, but for greetings; what scripts did inside is left out."""
    with redis.monitor() as monitor:  # type: ignore[no-untyped-call]
        run()
        redis.echo("end")
        sent: list[str] = []
        while not sent or sent[-1] != "ECHO end":
            command = monitor.next_command()
            name = command["command"].split()[0]
            if command["client_type"] != "lua" and name not in ("HELLO", "CLIENT", "MONITOR"):
                sent.append(command["command"])
        return sent[:-1]


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis)


class Selection(JobSelection):
    """Where `ends_when_empty` is set, the worker ends once it has found no more jobs."""

    ends_when_empty = False
    _has_waited = False

    def wait(self, timeout_s: float) -> None:
        if not self.ends_when_empty:
            super().wait(timeout_s)
        elif self._has_waited and self._was_empty:
            raise StopRequested
        self._has_waited = True


@dataclass(frozen=True, slots=True)
class LocalWorker:
    """The real worker classes around a tiny pipeline, run in this process until idle."""

    worker: GpuWorker
    jobs: JobsInHand
    work: Work
    selection: Selection
    heartbeat: Heartbeat
    metrics: WorkerMetrics
    pipeline: pipelines.Tiny

    def run_until_idle(self) -> None:
        self.selection.ends_when_empty = True
        self.worker.serve()


class MakeWorker(Protocol):
    def __call__(
        self, task: Task, client: Redis | None = None, drain_grace_s: float = 30.0
    ) -> LocalWorker: ...


@pytest.fixture
def local_worker(redis: Redis, redis_url: str, tmp_path: Path) -> Iterator[MakeWorker]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def make(task: Task, client: Redis | None = None, drain_grace_s: float = 30.0) -> LocalWorker:
        client = client or redis
        settings = WorkerSettings(redis_url=redis_url, queue=task, data_dir=tmp_path, device="cpu")
        metrics = WorkerMetrics(task)
        spec = ModelSpec(name=MODELS[task], task=task)
        status = WorkerStatus(
            f"local-{task}", task, WorkerState.LOADING, os.getpid(), "here", "cpu", (), 0.0, 0.0
        )
        heartbeat = Heartbeat(client, status, interval_s=3.0)
        residency = Residency(
            [spec], pipelines.TinyLoader(), metrics, heartbeat, Memory(), SwapPolicy()
        )
        pipelines.bring_all(residency)
        records = Records(client)
        jobs = JobsInHand(records, records, metrics, heartbeat.name, lease_s=15.0)
        work = build_work(settings, residency, records, jobs.settle, metrics)
        selection = Selection(client, records, jobs, task, residency)
        worker = GpuWorker(client, work, jobs, selection, heartbeat, drain_grace_s)
        pipeline = residency.get(spec.name)
        return LocalWorker(worker, jobs, work, selection, heartbeat, metrics, pipeline)

    yield make
    for number, handler in handlers.items():
        signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    process: ForkServerProcess
    metrics_port: int
    log: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None, "it was started"
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        assert self.process.is_alive(), self.log.read_text()
        os.kill(self.pid, number)

    def exit_code(self) -> int:
        self.process.join(DEADLINE_S)
        code = self.process.exitcode
        assert code is not None, f"it still runs:\n{self.log.read_text()}"
        return code


class StartWorker(Protocol):
    def __call__(
        self,
        task: Task,
        models: str | None = None,
        is_to_be_warm: bool = True,
        memory_budget: str = "",
        hang_s: str = "",
    ) -> WorkerProcess: ...


@pytest.fixture(scope="session")
def forking() -> ForkServerContext:
    """Forks processes from one whose imports are done, which take seconds."""
    context = get_context("forkserver")
    context.set_forkserver_preload([tiny_worker.__name__])
    return context


@pytest.fixture
def start_worker(
    redis: Redis, redis_url: str, tmp_path: Path, forking: ForkServerContext
) -> Iterator[StartWorker]:
    """Start real processes with short leases; each is warm when this returns."""
    started: list[WorkerProcess] = []

    def start(
        task: Task,
        models: str | None = None,
        is_to_be_warm: bool = True,
        memory_budget: str = "",
        hang_s: str = "",
    ) -> WorkerProcess:
        metrics_port = free_port()
        environment = {
            "TRIPTYCH_QUEUE": task.value,
            "TRIPTYCH_METRICS_PORT": str(metrics_port),
            "TRIPTYCH_REDIS_URL": redis_url,
            "TRIPTYCH_DATA_DIR": str(tmp_path),
            "TRIPTYCH_DEVICE": "cpu",
            "TRIPTYCH_LEASE_S": "1.5",
            "TRIPTYCH_HEARTBEAT_S": "0.2",
            "TRIPTYCH_MAX_ATTEMPTS": "2",
            "TRIPTYCH_RESULT_TTL_S": str(RESULT_TTL_S),
            "TRIPTYCH_MEMORY_BUDGET": memory_budget,
            "TRIPTYCH_HANG_S": hang_s,
            "TRIPTYCH_SWAP_PATIENCE_S": "0.3",
            "TRIPTYCH_NUM_THREADS": "1",
        }
        if models is not None:
            environment["TRIPTYCH_MODELS"] = models
        log = tmp_path / f"worker-{metrics_port}.log"
        process = forking.Process(target=tiny_worker.work, args=(environment, log))
        process.start()
        worker = WorkerProcess(process, metrics_port, log)
        started.append(worker)

        def is_warm() -> bool:
            assert process.is_alive(), f"the worker died while loading:\n{log.read_text()}"
            mine = [status for status in read_all(redis) if status.pid == worker.pid]
            return any(status.state.is_warm for status in mine)

        if is_to_be_warm:
            wait_until(is_warm, "the worker never became warm")
        return worker

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.join()
