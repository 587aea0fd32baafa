"""Gives back what dead workers held: their jobs run again at once, not when their leases end.

A thread of its own, because Redis may be away just then: it tries until everything is said. Knows
nothing of processes.
"""

import logging
import math
import queue
import threading
import time

from redis import Redis

from worker.contract import workers
from worker.contract.records import Records
from worker.redis_clients import is_unavailable

_RETRY_S = 0.2
_WARNING_S = 5.0  # between two lines that say the same

logger = logging.getLogger(__name__)


class LostWorkers:
    """A job that lost `max_attempts` workers is not run again."""

    def __init__(self, redis: Redis, result_ttl_s: float, max_attempts: int) -> None:
        self._redis = redis
        self._records = Records(redis, result_ttl_s)
        self._max_attempts = max_attempts
        self._names: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None: no more will come
        self._stopping = threading.Event()
        self._warned_at = -math.inf
        self._thread = threading.Thread(target=self._run, name="lost-workers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def report(self, name: str) -> None:
        """Take note that this worker is dead, and return at once."""
        self._names.put(name)

    def stop(self) -> None:
        """Say what is left, each once; a lease ends where Redis does not hear it."""
        self._stopping.set()
        self._names.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (name := self._names.get()) is not None:
            while not self._is_done_with(name):
                if self._stopping.wait(_RETRY_S):
                    break

    def _is_done_with(self, name: str) -> bool:
        """Whether Redis was told, or never will be."""
        try:
            self._give_back(name)
        except Exception as error:
            if is_unavailable(error):
                self._warn(name, error)
                return False
            # waiting does not mend it: its leases end by themselves, and others are to be told
            logger.exception("event=give_back_failed worker=%s", name)
        return True

    def _give_back(self, name: str) -> None:
        lost = self._records.reap_worker(name, self._max_attempts)
        for job in lost:
            event = "job_given_up" if job.is_given_up else "job_put_back"
            logger.warning(
                "event=%s job=%s attempt=%d worker=%s", event, job.job_id, job.attempt, name
            )
        workers.remove(self._redis, name)

    def _warn(self, name: str, error: Exception) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARNING_S:
            self._warned_at = now
            logger.warning("event=redis_away worker=%s error=%s", name, type(error).__name__)
