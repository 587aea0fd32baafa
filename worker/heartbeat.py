"""The thread that says "alive": the worker's own status, and what else is to be renewed with it.

It runs beside the one thread that owns the device, because a forward can take longer than a lease.
Knows nothing of jobs.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from redis import Redis
from redis.exceptions import RedisError

from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.model_cards import ModelCard
from worker.contract.workers import ModelState, WorkerState, WorkerStatus
from worker.redis_clients import AwayLog

_STOP_S = 1.0  # for a beat that is under way: where Redis is silent, nobody waits for its end

logger = logging.getLogger(__name__)


class Heartbeat:
    def __init__(self, redis: Redis, status: WorkerStatus, interval_s: float) -> None:
        self._redis = redis
        self._status = status
        self._interval_s = interval_s
        self._lock = threading.RLock()  # a signal handler may re-enter
        self._cards: list[ModelCard] = []
        self._companions: list[Callable[[], object]] = []
        self._is_listed = False
        self._beat_at = -math.inf  # by the monotonic clock: the last one that Redis took
        self._away = AwayLog(logger, "heartbeat_failed")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def name(self) -> str:
        return self._status.name

    @property
    def task(self) -> Task:
        return self._status.task

    @property
    def is_fresh(self) -> bool:
        """Whether others see that this worker lives."""
        return time.monotonic() - self._beat_at < workers.STATUS_TTL_S

    def start(self) -> None:
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """Stop, and take the worker off the list of the living, unless Redis is silent."""
        self._stopping.set()
        if self._thread.is_alive():  # a signal may have come before its start
            self._thread.join(_STOP_S)
        if self._is_listed and not self._thread.is_alive():
            with self._tolerance():
                workers.remove(self._redis, self._status.name)

    def also(self, companion: Callable[[], object]) -> None:
        """Call this at every beat as well."""
        self._companions.append(companion)

    def note(self, state: WorkerState) -> None:
        """Change the state for the next beat; draining is never taken back.

        A worker without a model that is ready is loading, whatever else it does.
        """
        with self._lock:
            is_of_use = bool(self._cards) or state is WorkerState.DRAINING
            if is_of_use and self._status.state is not WorkerState.DRAINING:
                self._status = replace(self._status, state=state)

    def note_progress(self, model: str, progress: str) -> None:
        """Say how far a model is, from the next beat on."""
        self._change(model, progress=progress)

    def note_resident(self, model: str, is_resident: bool) -> None:
        """Say from the next beat on whether a model is on the device."""
        self._change(model, is_resident=is_resident, progress=None)

    def announce_ready(self, card: ModelCard, load_s: float) -> None:
        """Publish the card now, and from now on at every beat; with the first the worker is of use.

        A model that was loaded again has the card of that load.
        """
        with self._lock:
            self._cards = [*(each for each in self._cards if each.name != card.name), card]
            self._change(
                card.name,
                state=ModelState.READY,
                is_resident=True,
                progress=None,
                reason=None,
                card=card.digest,
                results_digest=card.results_digest,
                load_s=load_s,
            )
            if self._status.state is WorkerState.LOADING:
                self.note(WorkerState.IDLE)
        self._write_now()

    def announce_failed(self, model: str, reason: str) -> None:
        """Say now that a model could not be loaded; its card goes, for no job of it can be done."""
        with self._lock:
            self._cards = [each for each in self._cards if each.name != model]
            self._change(
                model,
                state=ModelState.FAILED,
                is_resident=False,
                progress=None,
                reason=reason,
                card=None,
                results_digest=None,
            )
            if not self._cards and self._status.state is not WorkerState.DRAINING:
                self._status = replace(self._status, state=WorkerState.LOADING)
        self._write_now()

    def _change(self, name: str, **changes: object) -> None:
        with self._lock:
            models = tuple(
                model.model_copy(update=changes) if model.name == name else model
                for model in self._status.models
            )
            self._status = replace(self._status, models=models)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self._beat()

    def _write_now(self) -> None:
        with self._tolerance():
            self._write()

    @contextmanager
    def _tolerance(self) -> Iterator[None]:
        """Go on without it: the next beat tries again, and leases outlast several."""
        try:
            yield
        except RedisError as error:
            self._away.note(error)
        except Exception:  # whatever one companion has: the others are to be called, also next time
            logger.exception("event=heartbeat_failed")

    def _beat(self) -> None:
        self._write_now()
        for companion in self._companions:
            with self._tolerance():
                companion()

    def _write(self) -> None:
        with self._lock:
            self._status = replace(self._status, heartbeat_at=time.time())
            status, cards = self._status, tuple(self._cards)
        workers.write(self._redis, status, cards)
        self._is_listed, self._beat_at = True, time.monotonic()
