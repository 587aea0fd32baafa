"""`triptych serve`: Valkey, the API and a worker per task served, kept running until a signal.

At the first SIGTERM or SIGINT the API stops accepting and answers what is open, then the workers
finish their job or batch, then Valkey writes its file. A second signal ends everything at once.
Knows nothing about jobs.
"""

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
from triptych.settings import ServeSettings
from worker.contract.jobs import Task
from worker.model_specs import ModelSpec, as_json

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S = 0.2
_STOP_TIMEOUT_S = 10.0  # for processes that have nothing to finish


class Supervisor:
    """Starts the children, restarts those that die, stops them in order."""

    def __init__(
        self,
        settings: ServeSettings,
        specs: Sequence[ModelSpec],
        worker_module: str = "worker.main",
    ) -> None:
        """Serve the models of `specs`, of which each has its task."""
        self._settings = settings
        self._specs = specs
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
        tasks = served_tasks(self._specs)
        api = api_child(self._settings, redis_url, tasks)
        workers = [
            worker_child(self._settings, self._specs, redis_url, task, port, self._worker_module)
            for task, port in free_worker_ports(self._settings, tasks).items()
        ]
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


def served_tasks(specs: Sequence[ModelSpec]) -> list[Task]:
    """The tasks that at least one model is served for."""
    return [task for task in Task if any(spec.task is task for spec in specs)]


def worker_ports(settings: ServeSettings, tasks: Sequence[Task]) -> dict[Task, int]:
    """The metrics ports, behind the API's: 8001 images, 8002 classify, 8003 embeddings."""
    ports = {task: settings.port + i for i, task in enumerate(Task, start=1)}
    return {task: ports[task] for task in tasks}


def free_worker_ports(settings: ServeSettings, tasks: Sequence[Task]) -> Mapping[Task, int]:
    """The metrics ports; another where one is taken: measuring must not keep us from serving."""
    ports: dict[Task, int] = {}
    for task, wanted in worker_ports(settings, tasks).items():
        ports[task] = free_port(settings.host, wanted)
        if ports[task] != wanted:
            logger.warning(
                "event=metrics_port_taken task=%s wanted=%d used=%d", task, wanted, ports[task]
            )
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
    task: Task,
    metrics_port: int,
    module: str,
) -> Child:
    environment = {
        "TRIPTYCH_REDIS_URL": redis_url,
        "TRIPTYCH_DATA_DIR": str(settings.data_dir),
        "TRIPTYCH_CONFIG": "" if settings.config is None else str(settings.config),
        "TRIPTYCH_MODELS": as_json(spec for spec in specs if spec.task is task),
        "TRIPTYCH_MODEL_ALIASES": "{}",  # each model has its own by now
        "TRIPTYCH_DEVICE": settings.device,
        "TRIPTYCH_METRICS_HOST": settings.host,
        "TRIPTYCH_METRICS_PORT": str(metrics_port),
        "TRIPTYCH_NUM_THREADS": str(num_threads(task)),
    }
    # the queue as an argument, so that `ps` shows it
    command = [sys.executable, "-m", module, "--queue", task.value]
    return Child(f"worker-{task}", command, environment)


def num_threads(task: Task) -> int:
    """Of torch on the CPU: one for small forwards, half of the cores for images.

    Threads that wait for each other on a core that is taken are slower than one alone: on two busy
    cores a 128x128 image took 0.2 s with one thread and 5 s with two.
    """
    return max(1, (os.cpu_count() or 1) // 2) if task is Task.IMAGES else 1


def answers_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
