"""Jobs whose worker went silent run again, or fail when they have cost too many workers.

Queued jobs that nobody took until their deadline expire.
Every worker has this thread, and a key in Redis lets one of them at a time do a round over all
queues. All changes are compare-and-set: a job that ends in the meantime stays ended.
"""

import logging
import threading

from redis import Redis
from redis.exceptions import RedisError

from worker.contract.jobs import FailureCode, Task
from worker.contract.records import Finished, Records
from worker.failures import worker_lost
from worker.metrics import WorkerMetrics

_TURN_KEY = "triptych:reaper"

logger = logging.getLogger(__name__)


class Reaper:
    def __init__(
        self,
        redis: Redis,
        records: Records,
        metrics: WorkerMetrics,
        max_attempts: int,
        lease_s: float,
    ) -> None:
        self._redis = redis
        self._records = records
        self._metrics = metrics
        self._max_attempts = max_attempts
        self._lease_s = lease_s
        self._interval_s = lease_s / 3  # so a lost job waits for a lease and a third at most
        self._first_seen: dict[tuple[Task, str], float] = {}  # entries between queue and worker
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def sweep(self, now: float) -> None:
        """One round over all queues; `now` by the server's clock."""
        if num_expired := self._records.expire_queued():
            logger.warning("event=queued_jobs_expired jobs=%d", num_expired)
        for task in Task:
            for job_id in self._records.overdue(task, now):
                self._reap(task, job_id)
        self._put_back_stuck(now)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                if self._is_my_turn():
                    self.sweep(self._records.now())
            except RedisError as error:  # the next round tries again
                logger.warning("event=reaper_failed error=%s", type(error).__name__)
            except Exception:
                logger.exception("event=reaper_failed")

    def _is_my_turn(self) -> bool:
        """The key expires by itself, so a round is missed at most when its owner dies."""
        turn_ms = int(self._interval_s * 900)  # a little less than the interval
        return bool(self._redis.set(_TURN_KEY, "taken", nx=True, px=turn_ms))

    def _reap(self, task: Task, job_id: str) -> None:
        lost = self._records.last_attempt(job_id)
        if lost is None:
            return
        if lost.attempt < self._max_attempts:
            if self._records.release(job_id, lost.attempt):
                self._metrics.job_retries.labels(task, FailureCode.WORKER_LOST).inc()
                logger.warning("event=job_put_back job=%s attempt=%d", job_id, lost.attempt)
            return
        failure = worker_lost(lost.attempt)
        [is_current] = self._records.finish([Finished(job_id, lost.attempt, failure)])
        if is_current:
            self._metrics.jobs_finished.labels(task, lost.model, "failed").inc()
            self._metrics.job_failures.labels(task, lost.model, failure.code).inc()
            logger.error("event=job_given_up job=%s attempt=%d", job_id, lost.attempt)

    def _put_back_stuck(self, now: float) -> None:
        """Entries whose worker died between taking them and taking their jobs."""
        seen = {(task, entry) for task in Task for entry in self._records.handed_over(task)}
        self._first_seen = {each: self._first_seen.get(each, now) for each in seen}
        for (task, job_id), first_seen in self._first_seen.items():
            if now - first_seen >= self._lease_s and self._records.unstick(task, job_id):
                logger.warning("event=job_put_back job=%s attempt=0", job_id)
