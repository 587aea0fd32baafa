"""The jobs that this worker has taken and not ended yet, from the claim to the final state.

The loop's thread claims, any thread settles, the heartbeat's thread renews the leases. Knows
nothing of models and forwards.
"""

import logging
import secrets
import threading
import time
from collections.abc import Collection, Sequence

from worker.contract.jobs import Failure, JobState, Task
from worker.contract.records import Claim, Finished, Outcome, Record, Records, Room
from worker.metrics import WorkerMetrics
from worker.work import Ending

logger = logging.getLogger(__name__)


class JobsInHand:
    """`side_records` is for the heartbeat's thread: there, no call may hang for long."""

    def __init__(
        self,
        records: Records,
        side_records: Records,
        metrics: WorkerMetrics,
        worker: str,
        lease_s: float,
    ) -> None:
        self._records = records
        self._side_records = side_records
        self._metrics = metrics
        self._worker = worker
        self._lease_s = lease_s
        self._claim_token = secrets.token_hex(8)  # of the next claim
        self._leases: dict[str, int] = {}  # job to attempt; the job taken first is the first
        self._leases_lock = threading.Lock()
        # claims and endings come to Redis in the order in which they are noted here, or RQ's books
        # would say of a busy worker that it is idle
        self._books_lock = threading.Lock()

    def claim(
        self, task: Task, models: Collection[str], room: Room, waited_for: str | None = None
    ) -> Claim:
        """Take what there is room for; see `Records.claim`.

        Where it raises, nothing is lost: the next claim gives what this one may have taken.
        """
        with self._books_lock:
            claim = self._records.claim(
                task, self._worker, self._lease_s, models, room, waited_for, self._claim_token
            )
            with self._leases_lock:
                self._leases.update((record.id, record.attempt) for record in claim.records)
            self._records.finish(claim.unreadable, self._worker, self._next_beside(()))
            self._claim_token = secrets.token_hex(8)
        for record in claim.records:
            wait_s = max(0.0, _started_at(record) - record.job.created_at)  # two hosts' clocks
            self._metrics.job_queue_wait.labels(record.task).observe(wait_s)
        for entry in claim.refused:
            logger.error("event=entry_refused entry=%s reason=no such job", entry)
        return claim

    def settle(self, endings: Sequence[Ending]) -> None:
        """Make these outcomes final, in one round trip; those of stale attempts change nothing.

        A job that is past its deadline by now has expired, whatever came of it.
        """
        if not endings:
            return
        now = time.time()
        endings = [(record, _in_time(record, outcome, now)) for record, outcome in endings]
        finished = [Finished(record.id, record.attempt, outcome) for record, outcome in endings]
        ended = {(record.id, record.attempt) for record, _ in endings}
        with self._books_lock:
            are_current = self._records.finish(finished, self._worker, self._next_beside(ended))
            self._forget(ended)
        for (record, outcome), is_current in zip(endings, are_current, strict=True):
            if is_current:
                self._count(record, outcome, now)
            else:
                logger.warning("event=stale_attempt job=%s attempt=%d", record.id, record.attempt)

    def renew(self) -> None:
        """Lengthen the leases, and forget the jobs that are another worker's by now."""
        with self._leases_lock:
            leases = dict(self._leases)
        stale = self._side_records.renew(leases, self._lease_s)
        self._forget([(job_id, leases[job_id]) for job_id in stale])

    def let_go(self) -> None:
        """End the leases of all that is in hand: the reaper puts back what may run again."""
        with self._leases_lock:
            leases, self._leases = self._leases, {}
        self._records.renew(leases, 0.0)

    def _next_beside(self, ended: Collection[tuple[str, int]]) -> str | None:
        with self._leases_lock:
            return next((lease[0] for lease in self._leases.items() if lease not in ended), None)

    def _forget(self, ended: Collection[tuple[str, int]]) -> None:
        """Of a job that was put back, a later attempt may be in hand already: that one stays."""
        with self._leases_lock:
            for job_id, attempt in ended:
                if self._leases.get(job_id) == attempt:
                    del self._leases[job_id]

    def _count(self, record: Record, outcome: Outcome, now: float) -> None:
        task, model = record.task, record.job.model
        state = _final_state(outcome)
        self._metrics.jobs_finished.labels(task, model, state).inc()
        if isinstance(outcome, Failure):
            self._metrics.job_failures.labels(task, model, outcome.code).inc()
        run_s = max(0.0, now - _started_at(record))
        self._metrics.job_run_duration.labels(task, model).observe(run_s)
        logger.info("event=job_ended job=%s state=%s run_s=%.3f", record.id, state, run_s)


def _in_time(record: Record, outcome: Outcome, now: float) -> Outcome:
    deadline_at = record.job.deadline_at
    return JobState.EXPIRED if deadline_at is not None and deadline_at <= now else outcome


def _started_at(record: Record) -> float:
    assert record.started_at is not None, "a claimed record has started: this is a bug"
    return record.started_at


def _final_state(outcome: Outcome) -> JobState:
    if isinstance(outcome, JobState):
        return outcome
    return JobState.FAILED if isinstance(outcome, Failure) else JobState.SUCCEEDED
