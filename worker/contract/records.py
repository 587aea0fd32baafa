"""The truth about every job: one Redis hash each, changed only by compare-and-set.

queued ─► running ─► succeeded | failed | canceled | expired; running ─► queued when a worker is
lost or gives it back. The attempt is the fencing token: who holds an older one can change nothing
any more, and a final state never changes. Whatever RQ believes, the record is right. Each change is
one script, with RQ's books and the job's events in it (see `record_scripts`, `events`), and one
round trip for any number of jobs. How a job is queued is in `submission`, who is next in
`waiting_scripts`, and what is read of a record in `record`. Free of torch; knows nothing of HTTP
and models.
"""

import base64
import logging
import secrets
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache

from redis import Redis
from rq.utils import utcformat

from worker.contract import claim_script, record_scripts, script_prelude, waiting_scripts
from worker.contract.jobs import Failure, FailureCode, JobState, Task
from worker.contract.record import (
    JobStatus,
    Outcome,
    Record,
    Scalar,
    as_text,
    decoded,
    parse_claimed,
    parse_record,
    record_key,
)

FINISHED_CHANNEL = script_prelude.FINISHED_CHANNEL  # every final state publishes the job's id here
RESULT_TTL_S = 86_400.0  # a day: as long as an idempotency key of the API
RESULT_CACHE_BYTES = 64 * 2**20
_UNREADABLE = Failure(code=FailureCode.INTERNAL, message="the worker cannot read this job")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """Which jobs are taken next: `max_jobs` in all, and of each group so many rows.

    A job of several rows is taken whole where there is room for its first. A group that is not
    named has room for `rows_of_new_group`.
    """

    max_jobs: int
    rows_of_new_group: int
    rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_none(self) -> bool:
        return self.max_jobs < 1 or (self.rows_of_new_group < 1 and self._are_groups_full)

    @property
    def is_for_new_groups_alone(self) -> bool:
        return bool(self.rows) and self._are_groups_full

    @property
    def _are_groups_full(self) -> bool:
        return all(num_rows < 1 for num_rows in self.rows.values())


@dataclass(frozen=True, slots=True)
class Finished:
    job_id: str
    attempt: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class LostJob:
    """A job whose worker was lost: it waits again, or is given up."""

    job_id: str
    task: Task
    model: str
    attempt: int  # the one that was lost
    is_given_up: bool  # it has failed, as it cost too many workers


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker took: its records, in the queue's order, run from now on.

    unreadable  jobs that run as well, but whose record says nothing to this worker, to be finished
    others      the other models that jobs wait for, in the queue's order
    """

    records: list[Record]
    unreadable: list[Finished]
    others: list[str]


@dataclass(frozen=True, slots=True)
class Preview:
    index: int  # which image of the job
    step: int  # after how many of that image's steps
    png: bytes


@dataclass(frozen=True, slots=True)
class StepReport:
    """How far a running job is; each step is published once, however often it is reported."""

    job_id: str
    attempt: int
    step: int
    num_steps: int
    remaining_s: float | None  # until its end; None: not known yet
    previews: tuple[Preview, ...] = ()


class Verdict(StrEnum):
    """What is to become of a running job."""

    GO_ON = "go_on"
    CANCEL = "cancel"  # a client asked for it
    STALE = "stale"  # the job belongs to another attempt, or is final


class Records:
    """The records on one server; for workers, the reaper and tools."""

    def __init__(
        self,
        redis: Redis,
        result_ttl_s: float = RESULT_TTL_S,
        result_cache_bytes: int = RESULT_CACHE_BYTES,
    ) -> None:
        self._redis = redis
        self._ttl_s = int(result_ttl_s)
        self._result_cache_bytes = result_cache_bytes
        self._keep = redis.register_script(record_scripts.KEEP)
        self._claim = redis.register_script(claim_script.CLAIM)
        self._renew = redis.register_script(record_scripts.RENEW)
        self._report = redis.register_script(record_scripts.REPORT)
        self._finish = redis.register_script(record_scripts.FINISH)
        self._cancel = redis.register_script(record_scripts.CANCEL)
        self._release = redis.register_script(record_scripts.RELEASE)
        self._reap = redis.register_script(record_scripts.REAP)
        self._expire = redis.register_script(record_scripts.EXPIRE)
        self._look_at_rq_list = redis.register_script(record_scripts.LOOK_AT_RQ_LIST)
        self._clean_rq_list = redis.register_script(record_scripts.CLEAN_RQ_LIST)
        self._fill_rq_list = redis.register_script(record_scripts.FILL_RQ_LIST)

    def get(self, job_id: str) -> Record | None:
        return parse_record(decoded(self._redis.hgetall(record_key(job_id)).items()))

    def await_jobs(self, task: Task, timeout_s: float) -> bool:
        """Whether jobs wait, as soon as any do; whoever calls this is woken, and none is taken."""
        wake_key = f"{waiting_scripts.WAKE_PREFIX}{task}"
        return bool(self._redis.xread({wake_key: 0}, block=max(1, int(1000 * timeout_s))))

    def claim(
        self,
        task: Task,
        worker: str,
        lease_s: float,
        models: Collection[str],
        room: Room,
        token: str | None = None,
    ) -> Claim:
        """Start the next jobs of these models that there is room for: queued to running.

        Those past their deadline are ended instead. `token` stands for this claim, also where the
        client tries again by itself: a claim with the token of the worker's last one, whose reply
        was lost, gives what that one took.
        """
        args: list[Scalar] = [task, worker, lease_s, self._ttl_s, _rq_now()]
        args += [token or secrets.token_hex(8)]
        args += [room.max_jobs, room.rows_of_new_group, len(room.rows)]
        for group, num_rows in room.rows.items():
            args += [group, num_rows]
        args += models
        claimed, others = self._claim(args=args)
        records = [_claimed(fields, worker) for fields in claimed]
        return Claim(
            [record for record in records if isinstance(record, Record)],
            [record for record in records if isinstance(record, Finished)],
            [as_text(model) for model in others],
        )

    def renew(self, leases: Mapping[str, int], lease_s: float) -> list[str]:
        """Lengthen the leases, given as job id to attempt; returns the ids of the stale ones."""
        if not leases:
            return []
        stale = self._renew(args=[lease_s, *(part for lease in leases.items() for part in lease)])
        return [as_text(job_id) for job_id in stale]

    def report(self, reports: Sequence[StepReport]) -> list[Verdict]:
        """Publish the steps that are new, and learn which jobs are to stop."""
        if not reports:
            return []
        args = [argument for report in reports for argument in _report_args(report)]
        return [Verdict(as_text(verdict)) for verdict in self._report(args=args)]

    def cancels_asked_at(self, job_ids: Sequence[str]) -> list[float | None]:
        """When clients first asked to stop these, in Unix seconds of Redis' clock."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hget(record_key(job_id), "cancel_requested_at")
            return [None if at is None else float(at) for at in pipeline.execute()]

    def finish(
        self, endings: Sequence[Finished], worker: str | None = None, next_job: str | None = None
    ) -> list[bool]:
        """Make the outcomes final and wake who waits; False, changing nothing, for stale attempts.

        Sent again, as after a lost reply, the same endings change nothing and get the same answer.
        `worker` is whose work it was, for RQ's books, and `next_job` what it has in hand besides.
        """
        if not endings:
            return []
        args: list[Scalar] = [self._ttl_s, _rq_now(), worker or "", next_job or ""]
        args.append(self._result_cache_bytes)
        for ending in endings:
            args += [ending.job_id, ending.attempt, *_final_args(ending.outcome)]
        return [bool(is_current) for is_current in self._finish(args=args)]

    def cancel(self, job_id: str) -> Record | None:
        """End a queued job at once, ask a running one to stop; final ones stay as they are."""
        self._cancel(args=[job_id, self._ttl_s])
        return self.get(job_id)

    def keep(self, job_id: str) -> None:
        """Keep the record, which was to go soon after its end, as long as others."""
        self._keep(args=[job_id, self._ttl_s])

    def release(self, leases: Mapping[str, int]) -> list[str]:
        """Give running jobs back by choice: each is where it stood in the queue, with its history.

        `leases` as in `renew`, with the same reply. A job whose cancel was requested is canceled
        instead.
        """
        if not leases:
            return []
        stale = self._release(
            args=[self._ttl_s, *(part for each in leases.items() for part in each)]
        )
        return [as_text(job_id) for job_id in stale]

    def reap(self, task: Task, max_losses: int) -> list[LostJob]:
        """Put back the jobs whose lease has run out, or fail those that lost too many workers."""
        return self._reap_jobs("", max_losses, [task])

    def reap_worker(self, worker: str, max_losses: int) -> list[LostJob]:
        """Put back what a worker had in hand that is known to be dead, whatever its leases say.

        A claim that it may have sent before its death takes nothing any more.
        """
        return self._reap_jobs(worker, max_losses, list(Task))

    def _reap_jobs(self, worker: str, max_losses: int, tasks: Sequence[Task]) -> list[LostJob]:
        failure = _worker_lost(max_losses)
        args: list[Scalar] = [worker, max_losses, self._ttl_s, _rq_now()]
        args += [failure.model_dump_json(), _rq_text(failure.code.value), *tasks]
        return [
            LostJob(as_text(job_id), Task(as_text(task)), as_text(model), int(attempt), bool(is_up))
            for job_id, task, model, attempt, is_up in self._reap(args=args)
        ]

    def mend_rq_list(self, task: Task) -> list[str]:
        """Make RQ's list equal to the jobs that wait, where somebody else has changed it.

        A list of the right length is only looked at in part. Returns the entries that stand for no
        job: they are failed in RQ's books and never run.
        """
        if not self._look_at_rq_list(args=[task]):
            return []
        all_refused: list[str] = []
        start: list[int] = [0]
        while start:  # by parts, between which other clients have their turn
            refusal = _rq_text("refused: no such job")
            refused, *start = self._clean_rq_list(args=[task, _rq_now(), refusal, start[0]])
            all_refused += (as_text(entry) for entry in refused)
        first: int | None = 0
        while first is not None:
            first = self._fill_rq_list(args=[task, first])
        return all_refused

    def expire_queued(self) -> int:
        """End the jobs that are queued past their deadline; returns how many those were."""
        return int(self._expire(args=[self._ttl_s]))

    def statuses(self, job_ids: Collection[str]) -> dict[str, JobStatus]:
        """How the run of each of these jobs stands; those without a record are left out."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hmget(record_key(job_id), "state", "run_state", "attempt", "deadline_at")
            found = pipeline.execute()
        return {
            job_id: JobStatus(
                state=JobState(as_text(run_state or state)),
                attempt=int(attempt),
                deadline_at=None if deadline_at is None else float(deadline_at),
            )
            for job_id, (state, run_state, attempt, deadline_at) in zip(job_ids, found, strict=True)
            if state is not None
        }

    def now(self) -> float:
        """The server's clock, which dates every lease."""
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6


def _report_args(report: StepReport) -> Iterator[Scalar]:
    remaining_s = "" if report.remaining_s is None else f"{report.remaining_s:.3f}"
    yield from (report.job_id, report.attempt, report.step, report.num_steps, remaining_s)
    yield len(report.previews)
    for preview in report.previews:
        yield from (preview.index, preview.step, base64.b64encode(preview.png))


def _final_args(outcome: Outcome) -> tuple[str, str, str, str]:
    """The state, the field and its JSON where the outcome has more to say, and RQ's text."""
    if isinstance(outcome, JobState):
        return outcome.value, "", "", _rq_text(outcome.value)
    if isinstance(outcome, Failure):
        # a code and nothing of the request: whoever may read RQ's books may not read that
        rq_text = _rq_text(outcome.code.value)
        return JobState.FAILED.value, "failure", outcome.model_dump_json(), rq_text
    return JobState.SUCCEEDED.value, "result", outcome.model_dump_json(), ""


@cache
def _rq_text(reason: str) -> str:
    """Why an entry did not succeed, as RQ stores it."""
    return base64.b64encode(zlib.compress(reason.encode())).decode()


def _rq_now() -> str:
    return utcformat(datetime.now(UTC))


def _claimed(fields: Sequence[bytes | str | None], worker: str) -> Record | Finished:
    """A record that has just become running, from what differs between such.

    One that another version wrote, or nobody of us, is to end with that and harm no other.
    """
    job_id, attempt = as_text(fields[0] or ""), int(fields[1] or "")
    try:
        return parse_claimed(fields[2:], worker, attempt)
    except ValueError as error:  # pydantic's as well
        logger.error("event=unreadable_record job=%s reason=%s", job_id, type(error).__name__)
        return Finished(job_id, attempt, _UNREADABLE)


def _worker_lost(num_losses: int) -> Failure:
    return Failure(
        code=FailureCode.WORKER_LOST,
        message=f"the job's worker was lost {num_losses} times; it is not tried again",
    )
