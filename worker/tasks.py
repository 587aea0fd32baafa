"""The one function that RQ may call, and the batch it finds its job in.

`run` is called once per job; the first call of a batch does the work of all of them.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Protocol

from worker.contract.jobs import Failure, JobState
from worker.contract.records import Outcome, Record, Records
from worker.failures import JobFailedError, JobStoppedError, StaleAttemptError
from worker.heartbeat import Heartbeat
from worker.metrics import WorkerMetrics

logger = logging.getLogger(__name__)


class Work(Protocol):
    """One task's way from records to outcomes."""

    def run(self, records: Sequence[Record], settle: Callable[[Record, Outcome], None]) -> None:
        """Settle every record once, except one that another attempt owns by now."""

    def warm_up(self, model: str) -> None:
        """Load a preset and do one small piece of its work, so that the first job is fast."""


class Batch:
    """The jobs that were taken together; settles each in its record as soon as it ends."""

    def __init__(
        self,
        taken: Mapping[str, Record],
        work: Work,
        records: Records,
        heartbeat: Heartbeat,
        metrics: WorkerMetrics,
    ) -> None:
        self.taken = taken
        self._work = work
        self._records = records
        self._heartbeat = heartbeat
        self._metrics = metrics
        self._outcomes: dict[str, Outcome] = {}
        self._has_run = False

    def outcome(self, job_id: str) -> Outcome | None:
        """How a job ended, doing the whole batch first; None if another attempt owns the job."""
        if not self._has_run:
            self._has_run = True
            self._work.run(list(self.taken.values()), self._settle)
        return self._outcomes.get(job_id)

    def _settle(self, record: Record, outcome: Outcome) -> None:
        deadline_at = record.job.deadline_at
        if deadline_at is not None and deadline_at <= time.time():
            outcome = JobState.EXPIRED
        is_current = self._records.finish(record.id, record.attempt, outcome)
        self._heartbeat.release(record.id)
        if not is_current:
            logger.warning("event=stale_attempt job=%s attempt=%d", record.id, record.attempt)
            return
        self._outcomes[record.id] = outcome
        self._count(record, outcome)

    def _count(self, record: Record, outcome: Outcome) -> None:
        task, model = record.task, record.job.model
        state = _final_state(outcome)
        self._metrics.jobs_finished.labels(task, model, state).inc()
        if isinstance(outcome, Failure):
            self._metrics.job_failures.labels(task, model, outcome.code).inc()
        run_s = max(0.0, time.time() - _started_at(record))
        self._metrics.job_run_duration.labels(task, model).observe(run_s)
        logger.info("event=job_ended job=%s state=%s run_s=%.3f", record.id, state, run_s)


class Batches:
    """Takes jobs off RQ's hands: from here on their records say what happens."""

    def __init__(
        self, work: Work, records: Records, heartbeat: Heartbeat, metrics: WorkerMetrics
    ) -> None:
        self._work = work
        self._records = records
        self._heartbeat = heartbeat
        self._metrics = metrics

    def take(self, job_ids: Sequence[str]) -> Batch:
        """A batch of those of these jobs that are still to be done."""
        taken = {record.id: record for record in self._heartbeat.take(job_ids)}
        for record in taken.values():
            wait_s = max(0.0, _started_at(record) - record.job.created_at)  # two hosts' clocks
            self._metrics.job_queue_wait.labels(record.task).observe(wait_s)
        return Batch(taken, self._work, self._records, self._heartbeat, self._metrics)

    def put_back(self, job_ids: Sequence[str]) -> None:
        """Queue these again, except those that someone has taken or ended."""
        for job_id in job_ids:
            self._records.unstick(job_id)

    def is_over(self, job_id: str) -> bool:
        """Whether a job is final, or gone."""
        record = self._records.get(job_id)
        return record is None or record.state.is_final


current_batch: ContextVar[Batch] = ContextVar("current_batch")


def run(job_id: str) -> None:
    """RQ's entry point: return for a success, raise for any other end."""
    outcome = current_batch.get().outcome(job_id)
    if outcome is None:
        raise StaleAttemptError(f"another attempt of {job_id} counts")
    if isinstance(outcome, Failure):
        raise JobFailedError(outcome.code)
    if isinstance(outcome, JobState):
        raise JobStoppedError(outcome)


def _started_at(record: Record) -> float:
    assert record.started_at is not None, "a taken record has started: this is a bug"
    return record.started_at


def _final_state(outcome: Outcome) -> JobState:
    if isinstance(outcome, JobState):
        return outcome
    return JobState.FAILED if isinstance(outcome, Failure) else JobState.SUCCEEDED
