"""The jobs that this worker has taken and not ended yet, from the claim to the final state.

The loop's thread claims, any thread settles, the heartbeat's thread renews the leases. While Redis
is away, or refuses writes, what has ended waits in an outbox. Knows nothing of models and forwards.
"""

import logging
import secrets
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from worker.contract.jobs import Failure, JobState, Task
from worker.contract.record import Outcome, Record
from worker.contract.records import Claim, Finished, Records, Room
from worker.metrics import WorkerMetrics
from worker.outbox import Outbox
from worker.work import Ending

_NO_ROOM = Room(max_jobs=0, rows_of_new_group=0)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ended:
    record: Record
    outcome: Outcome
    ended_at: float  # Unix seconds

    @property
    def lease(self) -> tuple[str, int]:
        return self.record.id, self.record.attempt


class JobsInHand:
    """`records` is for calls between two steps, `side_records` for the heartbeat's thread."""

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
        self._unanswered: Task | None = None  # what the last one was for, where its reply is lost
        self._leases: dict[str, int] = {}  # job to attempt; the job taken first is the first
        self._leases_lock = threading.Lock()
        self._outbox: Outbox[_Ended] = Outbox(self._write, self._drop)
        # claims and endings come to Redis in the order in which they are noted here, or RQ's books
        # would say of a busy worker that it is idle
        self._books_lock = threading.Lock()

    def claim(self, task: Task, models: Collection[str], room: Room) -> Claim:
        """Take what there is room for; see `Records.claim`.

        Where it raises, nothing is lost: the next claim gives what this one may have taken, and
        only where that is nothing takes more.
        """
        with self._books_lock:
            if self._unanswered is not None:
                claim = self._send_claim(self._unanswered, models, _NO_ROOM)
                if claim.records or room.is_none:
                    return claim
            return self._send_claim(task, models, room)

    def claim_again(self) -> list[Record]:
        """What the last claim took whose reply was lost, if it was; takes nothing new."""
        with self._books_lock:
            task = self._unanswered
            return [] if task is None else self._send_claim(task, (), _NO_ROOM).records

    @property
    def has_unanswered_claim(self) -> bool:
        """Whether the last claim may have taken jobs that nobody here knows of."""
        return self._unanswered is not None

    def settle(self, endings: Sequence[Ending]) -> None:
        """Make these outcomes final, in one round trip; those of stale attempts change nothing.

        A job that is past its deadline by now has expired, whatever came of it. While Redis is
        away they wait: their leases are renewed until they are written.
        """
        if not endings:
            return
        now = time.time()
        with self._books_lock:
            self._outbox.add([_Ended(r, _in_time(r, outcome, now), now) for r, outcome in endings])
            self._outbox.flush()

    def write_endings(self) -> bool:
        """Try again to write what has ended; whether all is written now."""
        if self._outbox.is_empty:  # nearly always, and the lock may be taken for a while
            return True
        with self._books_lock:
            self._outbox.flush()
            return self._outbox.is_empty

    def renew(self) -> None:
        """Lengthen the leases, and forget the jobs that are another worker's by now."""
        with self._leases_lock:
            leases = dict(self._leases)
        stale = self._side_records.renew(leases, self._lease_s)
        self._forget([(job_id, leases[job_id]) for job_id in stale])

    def give_back(self, records: Sequence[Record]) -> None:
        """Let others run these; where Redis is away they do when the leases end."""
        by_id = {record.id: record for record in records}
        leases = {record.id: record.attempt for record in records}
        self._forget(leases.items())
        try:
            stale = self._records.release(leases)
        except RedisError as error:
            logger.warning("event=give_back_failed jobs=%d reason=%s", len(leases), error)
            return
        for job_id in leases.keys() - set(stale):
            record = by_id[job_id]
            self._metrics.spans.note_run(record, time.time(), "given_back", None)
            logger.warning(
                "event=job_given_back job=%s attempt=%d request_id=%s trace_id=%s",
                *(job_id, record.attempt, *record.job.log_ids),
            )

    def give_back_unknown(self) -> None:
        """Let others run what the last claim took whose reply was lost, if it was."""
        try:
            self.give_back(self.claim_again())
        except RedisError as error:
            logger.warning("event=give_back_failed reason=%s", error)

    def let_go(self) -> None:
        """End the leases of all that is in hand: the reaper puts back what may run again."""
        with self._leases_lock:
            leases, self._leases = self._leases, {}
        self._records.renew(leases, 0.0)

    def _send_claim(self, task: Task, models: Collection[str], room: Room) -> Claim:
        """After one whose reply is lost, `_NO_ROOM` asks what that one took."""
        self._unanswered = task
        claim = self._records.claim(
            task, self._worker, self._lease_s, models, room, self._claim_token
        )
        with self._leases_lock:
            self._leases.update((record.id, record.attempt) for record in claim.records)
        self._records.finish(claim.unreadable, self._worker, self._next_beside(()))
        self._claim_token, self._unanswered = secrets.token_hex(8), None
        for record in claim.records:
            self._metrics.job_queue_wait.labels(record.task).observe(_wait_s(record))
        return claim

    def _write(self, ended: Sequence[_Ended]) -> None:
        finished = [Finished(*each.lease, each.outcome) for each in ended]
        leases = {each.lease for each in ended}
        are_current = self._records.finish(finished, self._worker, self._next_beside(leases))
        self._forget(leases)
        for each, is_current in zip(ended, are_current, strict=True):
            if is_current:
                self._count(each)
            else:
                self._note_stale(each)

    def _drop(self, ended: _Ended, error: RedisError) -> None:
        """Its lease ends, and another attempt may come to an end that can be written."""
        self._forget([ended.lease])
        logger.error(
            "event=ending_lost job=%s attempt=%d reason=%s request_id=%s trace_id=%s",
            *(*ended.lease, error, *ended.record.job.log_ids),
        )

    def _next_beside(self, ended: Collection[tuple[str, int]]) -> str | None:
        with self._leases_lock:
            return next((lease[0] for lease in self._leases.items() if lease not in ended), None)

    def _forget(self, ended: Iterable[tuple[str, int]]) -> None:
        """Of a job that was put back, a later attempt may be in hand already: that one stays."""
        with self._leases_lock:
            for job_id, attempt in ended:
                if self._leases.get(job_id) == attempt:
                    del self._leases[job_id]

    def _note_stale(self, ended: _Ended) -> None:
        self._metrics.spans.note_run(ended.record, ended.ended_at, "stale", None)
        logger.warning(
            "event=stale_attempt job=%s attempt=%d request_id=%s trace_id=%s",
            *(*ended.lease, *ended.record.job.log_ids),
        )

    def _count(self, ended: _Ended) -> None:
        """Note how a job ended: in metrics, in spans, and in the one line of it in the log."""
        record, outcome = ended.record, ended.outcome
        task, model, state = record.task, record.job.model, _final_state(outcome)
        run_s = max(0.0, ended.ended_at - _started_at(record))
        self._metrics.jobs_finished.labels(task, model, state).inc()
        if isinstance(outcome, Failure):
            self._metrics.job_failures.labels(task, model, outcome.code).inc()
        self._metrics.job_run_duration.labels(task, model).observe(run_s)
        if state is JobState.SUCCEEDED:
            self._metrics.observe_e2e(record.job, ended.ended_at - record.job.created_at)
        error = outcome.code if isinstance(outcome, Failure) else None
        self._metrics.spans.note_run(record, ended.ended_at, state, error)
        logger.info(
            "event=job_ended job=%s task=%s model=%s state=%s attempt=%d wait_s=%.3f run_s=%.3f "
            "request_id=%s trace_id=%s",
            *(record.id, task, model, state, record.attempt, _wait_s(record), run_s),
            *record.job.log_ids,
        )


def _in_time(record: Record, outcome: Outcome, now: float) -> Outcome:
    deadline_at = record.job.deadline_at
    return JobState.EXPIRED if deadline_at is not None and deadline_at <= now else outcome


def _wait_s(record: Record) -> float:
    return max(0.0, _started_at(record) - record.job.created_at)  # two hosts' clocks


def _started_at(record: Record) -> float:
    assert record.started_at is not None, "a claimed record has started: this is a bug"
    return record.started_at


def _final_state(outcome: Outcome) -> JobState:
    if isinstance(outcome, JobState):
        return outcome
    return JobState.FAILED if isinstance(outcome, Failure) else JobState.SUCCEEDED
