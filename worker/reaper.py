"""Jobs whose worker went silent run again, or fail when they have cost too many workers.

Every worker has this thread, and a key in Redis lets one of them at a time do a round over all
queues. All changes are compare-and-set: a job that ends in the meantime stays ended.
"""

import logging
import threading

from redis import Redis
from redis.exceptions import RedisError

from worker import rq_entries
from worker.contract.jobs import FailureCode, JobState, Task
from worker.contract.records import Records
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
        self._first_seen: dict[str, float] = {}  # ids between queue and worker
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def sweep(self, now: float) -> None:
        """One round over all queues; `now` by the server's clock."""
        for task in Task:
            for job_id in self._records.overdue(task, now):
                self._reap(task, job_id)
            for job_id in rq_entries.started(self._redis, task):
                self._close_ended(task, job_id, now)
        self._put_back_stuck(now)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                if self._is_my_turn():
                    self.sweep(self._records.now())
            except RedisError as error:  # the next round tries again
                logger.warning("event=reaper_failed error=%s", type(error).__name__)

    def _is_my_turn(self) -> bool:
        """The key expires by itself, so a round is missed at most when its owner dies."""
        turn_ms = int(self._interval_s * 900)  # a little less than the interval
        return bool(self._redis.set(_TURN_KEY, "taken", nx=True, px=turn_ms))

    def _reap(self, task: Task, job_id: str) -> None:
        record = self._records.get(job_id)
        if record is None:
            return
        rq_entries.forget_executions(self._redis, task, job_id)
        if record.attempt < self._max_attempts:
            if self._records.release(job_id, record.attempt):
                self._metrics.job_retries.labels(task, FailureCode.WORKER_LOST).inc()
                logger.warning("event=job_put_back job=%s attempt=%d", job_id, record.attempt)
            return
        failure = worker_lost(record.attempt)
        if self._records.finish(job_id, record.attempt, failure):
            rq_entries.close_entry(self._redis, job_id, JobState.FAILED)
            self._metrics.jobs_finished.labels(task, record.job.model, "failed").inc()
            self._metrics.job_failures.labels(task, record.job.model, failure.code).inc()
            logger.error("event=job_given_up job=%s attempt=%d", job_id, record.attempt)

    def _close_ended(self, task: Task, job_id: str, now: float) -> None:
        """A worker died after it ended the job and before it told RQ."""
        record = self._records.get(job_id)
        ended_at = None if record is None else record.finished_at
        if record is None or ended_at is None or now - ended_at < self._lease_s:
            return
        rq_entries.forget_executions(self._redis, task, job_id)
        rq_entries.close_entry(self._redis, job_id, record.state)

    def _put_back_stuck(self, now: float) -> None:
        """Jobs whose worker died between taking the entry and taking the job."""
        seen = {id_ for task in Task for id_ in rq_entries.handed_over(self._redis, task)}
        self._first_seen = {job_id: self._first_seen.get(job_id, now) for job_id in seen}
        for job_id, first_seen in self._first_seen.items():
            if now - first_seen >= self._lease_s and self._records.unstick(job_id):
                logger.warning("event=job_put_back job=%s attempt=0", job_id)
