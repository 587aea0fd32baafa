"""Jobs whose worker went silent run again, or fail when they have cost too many workers.

Queued jobs that nobody took until their deadline expire, and what others put into RQ's lists is
refused. Every worker has this thread, and a key in Redis lets one of them at a time do a round over
all queues. All changes are compare-and-set: a job that ends in the meantime stays ended.

A host that is lost: its leases end after `lease_s` at most. The round that sees it comes a quarter
of that later, or two where the worker whose turn it was is lost as well. So the jobs run again
within 1.5 leases: 18 s by default. Where it was Redis that was away, all leases may be over though
their workers live: there is no round for one lease from its return on.
"""

import logging
import math
import threading
import time
from collections.abc import Callable

from redis import Redis
from redis.exceptions import RedisError

from worker.contract.jobs import FailureCode, Task
from worker.contract.records import LostJob, Records
from worker.metrics import WorkerMetrics
from worker.redis_clients import AwayLog

_TURN_KEY = "triptych:reaper"
_STOP_S = 1.0  # for a round that is under way: where Redis is silent, nobody waits for its end

logger = logging.getLogger(__name__)


class Reaper:
    def __init__(
        self,
        redis: Redis,
        records: Records,
        metrics: WorkerMetrics,
        max_attempts: int,
        lease_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._records = records
        self._metrics = metrics
        self._max_attempts = max_attempts
        self._lease_s = lease_s
        self._interval_s = lease_s / 4
        self._now = now
        self._looked_at = now()
        self._was_away_at = -math.inf
        self._away = AwayLog(logger, "reaper_failed")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(_STOP_S)

    def look(self) -> None:
        """Do a round, if it is this worker's turn; what Redis has against it is for the next one.

        A process that was stopped for a while is as one that did not reach Redis: its own leases
        may be over.
        """
        now, before = self._now(), self._looked_at
        self._looked_at = now
        if now - before > 2 * self._interval_s:
            self._was_away_at = now
        try:
            if self._can_tell_lost_ones and self._is_my_turn():
                self.sweep()
        except RedisError as error:
            self._was_away_at = self._now()
            self._away.note(error)

    def sweep(self) -> None:
        """One round over all queues."""
        if num_expired := self._records.expire_queued():
            logger.warning("event=queued_jobs_expired jobs=%d", num_expired)
        for task in Task:
            for lost in self._records.reap(task, self._max_attempts):
                self._note(lost)
            for entry in self._records.mend_rq_list(task):
                logger.error("event=entry_refused entry=%a reason=no such job", entry)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                self.look()
            except Exception:
                logger.exception("event=reaper_failed")

    @property
    def _can_tell_lost_ones(self) -> bool:
        """Whether every worker that lives has had a lease's time to renew its leases."""
        uptime_s = int(self._redis.info("server")["uptime_in_seconds"])
        return min(uptime_s, self._now() - self._was_away_at) >= self._lease_s

    def _is_my_turn(self) -> bool:
        """The key expires by itself, so a round is missed at most when its owner dies."""
        turn_ms = int(self._interval_s * 900)  # a little less than the interval
        return bool(self._redis.set(_TURN_KEY, "taken", nx=True, px=turn_ms))

    def _note(self, lost: LostJob) -> None:
        code = FailureCode.WORKER_LOST
        if lost.is_given_up:
            self._metrics.jobs_finished.labels(lost.task, lost.model, "failed").inc()
            self._metrics.job_failures.labels(lost.task, lost.model, code).inc()
            logger.error("event=job_given_up job=%s attempt=%d", lost.job_id, lost.attempt)
        else:
            self._metrics.job_retries.labels(lost.task, code).inc()
            logger.warning("event=job_put_back job=%s attempt=%d", lost.job_id, lost.attempt)
