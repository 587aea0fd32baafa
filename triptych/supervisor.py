"""`triptych serve`: Valkey, the API and one worker per queue, kept running until a signal.

At the first SIGTERM or SIGINT the API stops accepting and answers what is open, then the workers
finish their job or batch, then Valkey writes its file. A second signal ends everything at once.
Knows nothing about jobs.
"""

import errno
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType

import httpx

from triptych.child import Child
from triptych.embedded_redis import embedded_redis, socket_directory, wait_until_up
from triptych.settings import ServeSettings
from worker.contract.jobs import Task

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S = 0.1
_STOP_TIMEOUT_S = 10.0  # for processes that have nothing to finish


class PortTakenError(Exception):
    """Raised at start where another program listens on a port that is needed."""


class Supervisor:
    """Starts the children, restarts those that die, stops them in order."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._stop_now = threading.Event()

    def run(self) -> None:
        """Serve until a signal.

        Raises PortTakenError before anything is started.
        """
        for port in (self._settings.port, *worker_ports(self._settings).values()):
            require_free(self._settings.host, port)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        with ExitStack() as stack:
            redis_url = self._settings.redis_url
            if redis_url is None:
                path = stack.enter_context(socket_directory()) / "valkey.sock"
                redis_url = f"unix://{path}"
                valkey = embedded_redis(self._settings.data_dir, path)
                stack.callback(self._end, [valkey], _STOP_TIMEOUT_S)
                valkey.start()
                wait_until_up(redis_url, valkey)
                self._serve([valkey], redis_url)
            else:
                self._serve([], redis_url)

    def _serve(self, servers: Sequence[Child], redis_url: str) -> None:
        api = api_child(self._settings, redis_url)
        workers = [worker_child(self._settings, redis_url, task) for task in Task]
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
        url = f"http://{self._settings.host}:{self._settings.port}"
        with httpx.Client(timeout=1.0) as client:
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


def worker_ports(settings: ServeSettings) -> dict[Task, int]:
    """The metrics ports, behind the API's: 8001 images, 8002 classify, 8003 embeddings."""
    return {task: settings.port + i for i, task in enumerate(Task, start=1)}


def api_child(settings: ServeSettings, redis_url: str) -> Child:
    environment = {
        "TRIPTYCH_HOST": settings.host,
        "TRIPTYCH_PORT": str(settings.port),
        "TRIPTYCH_REDIS_URL": redis_url,
        "TRIPTYCH_DATA_DIR": str(settings.data_dir),
        "TRIPTYCH_DRAIN_GRACE_S": str(settings.drain_grace_s),
    }
    return Child("api", [sys.executable, "-m", "service.main"], environment)


def worker_child(settings: ServeSettings, redis_url: str, task: Task) -> Child:
    environment = {
        "TRIPTYCH_QUEUE": task.value,
        "TRIPTYCH_REDIS_URL": redis_url,
        "TRIPTYCH_DATA_DIR": str(settings.data_dir),
        "TRIPTYCH_DEVICE": settings.device,
        "TRIPTYCH_METRICS_PORT": str(worker_ports(settings)[task]),
    }
    if task is not Task.IMAGES:  # small forwards: more threads cost more than they give
        environment["TRIPTYCH_NUM_THREADS"] = "1"
    return Child(f"worker-{task}", [sys.executable, "-m", "worker.main"], environment)


def answers_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortTakenError(f"port {port} on {host} is taken by another program") from None
