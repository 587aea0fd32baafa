"""`triptych serve`: Valkey, the API, workers and who observes them, run until a signal.

At the first SIGTERM or SIGINT, or when its terminal closes (SIGHUP), the API stops accepting and
answers what is open, then the workers finish what fits in their grace and give the rest back, then
Valkey writes its file. A second signal ends everything at once. Of jobs it knows one thing: those
of a worker that died are to run again.
"""

import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing.connection import wait
from socket import socket
from types import FrameType

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from triptych.address import listen, url_of
from triptych.api_launch import answers_ready, api_children
from triptych.child import Child
from triptych.embedded_redis import data_lock, embedded_redis, socket_of_our_own, wait_until_up
from triptych.ending import end
from triptych.fork_server import ServerProcess
from triptych.host_devices import this_host
from triptych.lost_workers import LostWorkers
from triptych.model_sizes import stored_bytes
from triptych.observe import prepare
from triptych.prometheus_targets import write_targets
from triptych.settings import ServeSettings
from triptych.worker_launch import (
    WORKER,
    WorkerLauncher,
    WorkerProgram,
    free_worker_ports,
    shared_environment,
    worker_environment,
    worker_settings,
)
from triptych.worker_slots import WorkerSlot, plan_workers, served_tasks
from worker.model_specs import ModelSpec

logger = logging.getLogger(__name__)

_LATER_AFTER_S = 30.0  # a model may take long to come
_WATCH_INTERVAL_S = 0.2  # a worker's death is seen at once, that of others at the next look
_STOP_TIMEOUT_S = 10.0  # for processes that have nothing to finish
_LAST_WRITES_S = 5.0  # of workers, after the grace: what they hold goes back
_REDIS_TIMEOUT_S = 2.0
_SAME_SIGNAL_S = 0.2  # `timeout` sends each twice: to its child, and to the group of both


class Supervisor:
    """Starts the children, restarts those that die, stops them in order."""

    def __init__(
        self,
        settings: ServeSettings,
        specs: Sequence[ModelSpec],
        slots: Sequence[WorkerSlot],
        worker: WorkerProgram = WORKER,
    ) -> None:
        """Serve the models of `specs`, of which each has its task, by the workers of `slots`."""
        self._settings = settings
        self._specs = specs
        self._slots = slots
        self._worker = worker
        self._stop = threading.Event()
        self._stop_now = threading.Event()
        self._told_to_stop_at = math.inf
        self._fork_server = Child("fork-server", partial(
            ServerProcess,
            worker.imports(served_tasks(specs)),
            shared_environment(slots, os.environ),
        ))  # fmt: skip

    def run(self) -> None:
        """Serve until a signal; raises StartError where something needed is not to be had."""
        settings = self._settings
        with ExitStack() as stack:
            listeners = [stack.enter_context(each) for each in listen(settings.host, settings.port)]
            self._take_signals()
            servers: list[Child] = []
            if (url := settings.redis_url) is None:
                lock = stack.enter_context(data_lock(settings.data_dir))
                path = stack.enter_context(socket_of_our_own())
                url = f"unix://{path}"
                servers = [embedded_redis(settings.data_dir, path, lock)]
            for child in (self._fork_server, *servers):  # its imports take seconds
                stack.callback(end, [child], _STOP_TIMEOUT_S, self._stop_now)
                child.start()
            for server in servers:
                wait_until_up(url, server)
            self._serve(servers, url, listeners)

    def _serve(self, servers: Sequence[Child], redis_url: str, listeners: Sequence[socket]) -> None:
        settings = self._settings
        log_plan(self._slots)
        ports = free_worker_ports(settings, self._slots)
        write_targets(settings.data_dir, settings.host, ports)
        with (
            closing(prepare(settings)) as observers,
            self._lost_workers(redis_url) as lost,
            launch_thread() as launches,
        ):
            first_api, *other_apis = api_children(
                settings, redis_url, served_tasks(self._specs), listeners, observers.grafana_url
            )
            workers = self._worker_children(redis_url, ports, lost, launches)
            try:
                self._watch(
                    [*servers, self._fork_server, first_api, *workers],
                    [*other_apis, *observers.children],
                    observers.lines,
                )
            finally:
                logger.info("event=draining")
                for listener in listeners:
                    listener.close()  # the last API process to close its own refuses who comes
                end(
                    [first_api, *other_apis],
                    settings.drain_grace_s + _STOP_TIMEOUT_S,
                    self._stop_now,
                    workers,
                )
                end(workers, settings.drain_grace_s + _LAST_WRITES_S, self._stop_now)
                end(observers.children, _STOP_TIMEOUT_S, self._stop_now)

    @contextmanager
    def _lost_workers(self, redis_url: str) -> Iterator[LostWorkers]:
        configured = worker_settings(self._settings, redis_url, self._slots[0])
        timeout_s, once = _REDIS_TIMEOUT_S, Retry(NoBackoff(), 0)
        with Redis.from_url(redis_url, socket_timeout=timeout_s, retry=once) as redis:
            lost = LostWorkers(redis, configured.result_ttl_s, configured.max_attempts)
            lost.start()
            try:
                yield lost
            finally:
                lost.stop()

    def _worker_children(
        self,
        redis_url: str,
        ports: Mapping[WorkerSlot, int],
        lost: LostWorkers,
        launches: Executor,
    ) -> list[Child]:
        launchers = [
            WorkerLauncher(
                slot,
                self._worker.module,
                worker_environment(self._settings, self._specs, redis_url, slot, port),
                lost.report,
            )
            for slot, port in ports.items()
        ]
        return [
            Child(f"worker-{each.slot.name}", each.launch, each.report_lost, launches_on=launches)
            for each in launchers
        ]

    def _watch(
        self, first: Sequence[Child], later: Sequence[Child], said_when_ready: Sequence[str]
    ) -> None:
        """Start the children that do not run, now and whenever one dies, until a signal.

        The later ones wait until the first serve, whom they would take the cores from, or a while.
        """
        is_ready, later_at = False, time.monotonic() + _LATER_AFTER_S
        url = url_of(self._settings.host, self._settings.port)
        while not self._stop.is_set():
            is_time = is_ready or time.monotonic() > later_at
            children = [*first, *later] if is_time else first
            for child in children:
                child.note_death()  # before all starts: what a worker held runs again now
            for child in children:
                child.keep_running()
            if not is_ready and answers_ready(url):
                is_ready = True
                logger.info("event=ready url=%s", url)
                lines = [f"Triptych is ready: {url}", *said_when_ready]
                sys.stderr.write("".join(["\n", *(f"  {line}\n" for line in lines), "\n"]))
            sentinels = [child.sentinel for child in children]
            wait([each for each in sentinels if each is not None], _WATCH_INTERVAL_S)

    def _take_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup`
            signal.signal(signal.SIGHUP, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = time.monotonic()
        if not self._stop.is_set():
            self._told_to_stop_at = now
            self._stop.set()
        elif signum != signal.SIGHUP and now - self._told_to_stop_at > _SAME_SIGNAL_S:
            self._stop_now.set()  # a shell and the kernel may each say that a terminal is closed


@contextmanager
def launch_thread() -> Iterator[Executor]:
    """Where workers are launched; what is being launched at the end is not waited for."""
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launch")
    try:
        yield thread
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


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
