"""`triptych serve`: Valkey, the API and the workers, kept running until a signal.

At the first SIGTERM or SIGINT the API stops accepting and answers what is open, then the workers
finish their job or batch, then Valkey writes its file. A second signal ends everything at once.
Knows nothing about jobs.
"""

import itertools
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import FrameType

import httpx

from triptych.address import free_port, require_free, url_of
from triptych.child import Child
from triptych.embedded_redis import data_lock, embedded_redis, socket_directory, wait_until_up
from triptych.host_devices import this_host
from triptych.model_sizes import stored_bytes
from triptych.prometheus_targets import write_targets
from triptych.settings import ServeSettings
from triptych.worker_slots import CPU, WorkerSlot, plan_workers, served_tasks
from worker.contract.jobs import Task
from worker.host_memory import usable_host_bytes
from worker.model_specs import ModelSpec, as_json
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S = 0.2
_STOP_TIMEOUT_S = 10.0  # for processes that have nothing to finish
# How often a thread of OpenMP looks for the others before it sleeps. By default that is for
# milliseconds, which takes the core from the very thread that it waits for.
_SPINS = 500
_WAIT_POLICY = frozenset({"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"})  # the operator's word, if given


class Supervisor:
    """Starts the children, restarts those that die, stops them in order."""

    def __init__(
        self,
        settings: ServeSettings,
        specs: Sequence[ModelSpec],
        slots: Sequence[WorkerSlot],
        worker_module: str = "worker.main",
    ) -> None:
        """Serve the models of `specs`, of which each has its task, by the workers of `slots`."""
        self._settings = settings
        self._specs = specs
        self._slots = slots
        self._worker_module = worker_module
        self._stop = threading.Event()
        self._stop_now = threading.Event()

    def run(self) -> None:
        """Serve until a signal; raises StartError where something needed is not to be had."""
        settings = self._settings
        require_free(settings.host, settings.port)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        if settings.redis_url is not None:
            self._serve([], settings.redis_url)
            return
        with ExitStack() as stack:
            lock = stack.enter_context(data_lock(settings.data_dir))
            socket = stack.enter_context(socket_directory()) / "valkey.sock"
            url = f"unix://{socket}"
            valkey = embedded_redis(settings.data_dir, socket, lock)
            stack.callback(self._end, [valkey], _STOP_TIMEOUT_S)
            valkey.start()
            wait_until_up(url, valkey)
            self._serve([valkey], url)

    def _serve(self, servers: Sequence[Child], redis_url: str) -> None:
        settings = self._settings
        log_plan(self._slots)
        api = api_child(settings, redis_url, served_tasks(self._specs))
        ports = free_worker_ports(settings, self._slots)
        workers = [
            worker_child(settings, self._specs, redis_url, slot, port, self._worker_module)
            for slot, port in ports.items()
        ]
        write_targets(settings.data_dir, settings.host, ports)
        try:
            for child in (*workers, api):  # workers first: theirs is the longer way
                child.start()
            self._watch([*servers, *workers, api])
        finally:
            logger.info("event=draining")
            self._end([api], self._settings.drain_grace_s + _STOP_TIMEOUT_S)
            self._end(workers, timeout_s=None)

    def _watch(self, children: Sequence[Child]) -> None:
        is_ready = False
        url = url_of(self._settings.host, self._settings.port)
        with httpx.Client(timeout=1.0, trust_env=False) as client:  # no proxy to ourselves
            while not self._stop.wait(_WATCH_INTERVAL_S):
                for child in children:
                    child.keep_running()
                if not is_ready and answers_ready(client, url):
                    is_ready = True
                    logger.info("event=ready url=%s", url)
                    sys.stderr.write(f"\n  Triptych is ready: {url}\n\n")

    def _end(self, children: Sequence[Child], timeout_s: float | None) -> None:
        """Ask the children to stop and wait; None waits as long as their work takes."""
        for child in children:
            child.send(signal.SIGTERM)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while any(child.is_running for child in children):
            is_late = deadline is not None and time.monotonic() > deadline
            if is_late or self._stop_now.is_set():
                for child in children:
                    child.send(signal.SIGKILL)
            time.sleep(0.02)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()


def plan(settings: ServeSettings, specs: Sequence[ModelSpec]) -> list[WorkerSlot]:
    """The workers for this host, its devices and the sizes of the models.

    Raises DeviceError or WorkersError where it cannot have what was asked for.
    """
    sizes = {spec.name: stored_bytes(spec) for spec in specs}
    for name in [name for name, num_bytes in sizes.items() if num_bytes is None]:
        logger.info("event=model_size_unknown model=%s counted_as_bytes=0", name)
    known = {name: num_bytes for name, num_bytes in sizes.items() if num_bytes is not None}
    return plan_workers(this_host(), specs, known, settings.device, settings.workers)


def log_plan(slots: Sequence[WorkerSlot]) -> None:
    """A line for each worker, and one for each that lies where its models have no room."""
    for slot in slots:
        logger.info(
            "event=planned worker=%s device=%s threads=%d models=%s",
            slot.name, slot.device, slot.num_threads, ",".join(slot.models),
        )  # fmt: skip
        if slot.shortage is not None:
            logger.warning("event=short_of_memory worker=%s reason=%s", slot.name, slot.shortage)


def worker_ports(settings: ServeSettings, slots: Sequence[WorkerSlot]) -> dict[WorkerSlot, int]:
    """The metrics ports, behind the API's: 8001 images, 8002 classify, 8003 embeddings.

    Further workers of a task have those from 8004 on.
    """
    first = {task: settings.port + i for i, task in enumerate(Task, start=1)}
    further = itertools.count(settings.port + len(Task) + 1)
    return {slot: first[slot.task] if slot.index == 0 else next(further) for slot in slots}


def free_worker_ports(
    settings: ServeSettings, slots: Sequence[WorkerSlot]
) -> Mapping[WorkerSlot, int]:
    """The metrics ports; another where one is taken: measuring must not keep us from serving."""
    ports: dict[WorkerSlot, int] = {}
    for slot, wanted in worker_ports(settings, slots).items():
        ports[slot] = free_port(settings.host, wanted)
        if ports[slot] != wanted:
            logger.warning(
                "event=metrics_port_taken worker=%s wanted=%d used=%d",
                slot.name, wanted, ports[slot],
            )  # fmt: skip
    return ports


def api_child(settings: ServeSettings, redis_url: str, tasks: Sequence[Task]) -> Child:
    environment = {
        "TRIPTYCH_HOST": settings.host,
        "TRIPTYCH_PORT": str(settings.port),
        "TRIPTYCH_REDIS_URL": redis_url,
        "TRIPTYCH_DATA_DIR": str(settings.data_dir),
        "TRIPTYCH_TASKS": json.dumps(tasks),
        "TRIPTYCH_DRAIN_GRACE_S": str(settings.drain_grace_s),
    }
    return Child("api", [sys.executable, "-m", "service.main"], environment)


def worker_child(
    settings: ServeSettings,
    specs: Sequence[ModelSpec],
    redis_url: str,
    slot: WorkerSlot,
    metrics_port: int,
    module: str,
) -> Child:
    environment = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # so that cuda:N is nvidia-smi's N on mixed hosts too
        "TRIPTYCH_REDIS_URL": redis_url,
        "TRIPTYCH_DATA_DIR": str(settings.data_dir),
        "TRIPTYCH_CONFIG": "" if settings.config is None else str(settings.config),
        "TRIPTYCH_MODELS": as_json(spec for spec in specs if spec.name in slot.models),
        "TRIPTYCH_MODEL_ALIASES": "{}",  # each model has its own by now
        "TRIPTYCH_METRICS_HOST": settings.host,
        "TRIPTYCH_METRICS_PORT": str(metrics_port),
        "TRIPTYCH_NUM_THREADS": str(slot.num_threads),
    }
    if slot.shares_cores and not _WAIT_POLICY.intersection(os.environ):
        environment["GOMP_SPINCOUNT"] = str(_SPINS)
    # queue and device as arguments, so that `ps` shows them
    flags = ["--queue", slot.task.value, "--device", slot.device]
    environment |= _memory_shares(settings, redis_url, slot)
    return Child(f"worker-{slot.name}", [sys.executable, "-m", module, *flags], environment)


def _memory_shares(settings: ServeSettings, redis_url: str, slot: WorkerSlot) -> dict[str, str]:
    """Divide what several workers would each take for their own; what is configured stays."""
    if slot.device == CPU:
        return {}
    configured = WorkerSettings(
        config=settings.config,
        model_aliases={},  # the models are not given here
        queue=slot.task,
        redis_url=redis_url,
        data_dir=settings.data_dir,
        device=slot.device,
    )
    shares: dict[str, str] = {}
    if slot.share_bytes is not None and configured.memory_budget is None:
        share = max(1, slot.share_bytes - configured.memory_reserve)
        shares["TRIPTYCH_MEMORY_BUDGET"] = str(share)
    if configured.host_memory_budget is None:
        share = usable_host_bytes() // slot.num_gpu_workers
        shares["TRIPTYCH_HOST_MEMORY_BUDGET"] = str(share)
    return shares


def answers_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
