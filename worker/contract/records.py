"""The truth about every job: one Redis hash each, changed only by compare-and-set.

queued ─► running ─► succeeded | failed | canceled | expired; running ─► queued when a worker is
lost. The attempt is the fencing token: who holds an older one can change nothing any more, and a
final state never changes. RQ carries the id; whatever RQ believes, the record is right. Each change
is one script, with RQ's books and the job's events in it (see `record_scripts`, `events`), and one
round trip for any number of jobs. How a job is queued is in `submission`. Free of torch; knows
nothing of HTTP and models.
"""

import base64
import logging
import secrets
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Literal, TypeAlias, cast

from redis import Redis
from rq.intermediate_queue import IntermediateQueue
from rq.queue import Queue
from rq.utils import utcformat

from worker.contract import claim_script, record_scripts, script_prelude
from worker.contract.jobs import (
    JOB,
    RESULT,
    ClassifyJob,
    ClassifyResult,
    EmbeddingsJob,
    EmbeddingsResult,
    Failure,
    FailureCode,
    ImageJob,
    ImageResult,
    JobState,
    Task,
)

FINISHED_CHANNEL = script_prelude.FINISHED_CHANNEL  # every final state publishes the job's id here
RESULT_TTL_S = 86_400.0  # a day: as long as an idempotency key of the API
# What `parse_record` reads of a record, but for the inputs' bytes.
STATUS_FIELDS = (
    *("job", "group", "num_rows", "state", "attempt", "step", "num_steps", "cancel_requested"),
    *("started_at", "finished_at", "result", "failure", "worker"),
)
# Between a record's images: no letter of base64, so that megabytes need no escaping, which as JSON
# held the API's event loop for 20 times as long.
IMAGE_SEPARATOR = ","
_MAX_ENTRIES_SEEN = 1000  # for those that can be taken among those that cannot
_UNREADABLE = Failure(code=FailureCode.INTERNAL, message="the worker cannot read this job")

logger = logging.getLogger(__name__)

AnyJob: TypeAlias = ImageJob | ClassifyJob | EmbeddingsJob
AnyResult: TypeAlias = ImageResult | ClassifyResult | EmbeddingsResult
EndedEarly: TypeAlias = Literal[JobState.CANCELED, JobState.EXPIRED]
Outcome: TypeAlias = AnyResult | Failure | EndedEarly
Scalar: TypeAlias = bytes | bytearray | memoryview | str | int | float  # what Redis stores


@dataclass(frozen=True, slots=True)
class Record:
    """A snapshot. The images of a classify job are gone once its state is final."""

    job: AnyJob
    group: str  # see `submission.group_of`
    num_rows: int
    state: JobState
    attempt: int  # 0 before the first run
    step: int
    num_steps: int
    is_cancel_requested: bool
    started_at: float | None
    finished_at: float | None
    result: AnyResult | None
    failure: Failure | None
    worker: str | None

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def task(self) -> Task:
        return self.job.task


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
class Attempt:
    """The last one at a job."""

    model: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker took: its records, in the queue's order, run from now on.

    unreadable  jobs that run as well, but whose record says nothing to this worker, to be finished
    refused     entries without a record: never run, and failed in RQ's books
    others      the other models that jobs wait for, in the queue's order
    """

    records: list[Record]
    unreadable: list[Finished]
    refused: list[str]
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


def record_key(job_id: str) -> str:
    return f"{script_prelude.RECORD_PREFIX}{job_id}"


def running_key(task: Task) -> str:
    return f"{script_prelude.RUNNING_PREFIX}{task}"


def queue_name(task: Task) -> str:
    return f"{script_prelude.QUEUE_NAME_PREFIX}{task}"


def queue_key(task: Task) -> str:
    """The Redis list of the ids that wait: its length is the depth of the queue."""
    return f"{Queue.redis_queue_namespace_prefix}{queue_name(task)}"


def intermediate_key(task: Task) -> str:
    """RQ's list of the ids that were taken from the queue and not claimed yet."""
    return IntermediateQueue.get_intermediate_queue_key(queue_key(task))


def parse_record(mapping: Mapping[str, str]) -> Record | None:
    """Read what `HGETALL` gave, decoded; None where there is no such record."""
    if not mapping:
        return None
    result, failure = mapping.get("result"), mapping.get("failure")
    return Record(
        job=_parse_job(mapping["job"], mapping.get("images", "")),
        group=mapping["group"],
        num_rows=int(mapping["num_rows"]),
        state=JobState(mapping["state"]),
        attempt=int(mapping["attempt"]),
        step=int(mapping["step"]),
        num_steps=int(mapping["num_steps"]),
        is_cancel_requested=mapping["cancel_requested"] == "1",
        started_at=_optional_float(mapping.get("started_at")),
        finished_at=_optional_float(mapping.get("finished_at")),
        result=None if result is None else RESULT.validate_json(result),
        failure=None if failure is None else Failure.model_validate_json(failure),
        worker=mapping.get("worker"),
    )


class Records:
    """The records on one server; for workers, the reaper and tools."""

    def __init__(self, redis: Redis, result_ttl_s: float = RESULT_TTL_S) -> None:
        self._redis = redis
        self._ttl_s = int(result_ttl_s)
        self._claim = redis.register_script(claim_script.CLAIM)
        self._renew = redis.register_script(record_scripts.RENEW)
        self._report = redis.register_script(record_scripts.REPORT)
        self._finish = redis.register_script(record_scripts.FINISH)
        self._cancel = redis.register_script(record_scripts.CANCEL)
        self._release = redis.register_script(record_scripts.RELEASE)
        self._unstick = redis.register_script(record_scripts.UNSTICK)
        self._expire = redis.register_script(record_scripts.EXPIRE)

    def get(self, job_id: str) -> Record | None:
        return parse_record(_decode(self._redis.hgetall(record_key(job_id)).items()))

    def last_attempt(self, job_id: str) -> Attempt | None:
        """What can be told of any record, also of one that another version wrote."""
        model, attempt = self._redis.hmget(record_key(job_id), "model", "attempt")
        return None if attempt is None else Attempt(as_text(model or ""), int(attempt))

    def claim(
        self,
        task: Task,
        worker: str,
        lease_s: float,
        models: Collection[str],
        room: Room,
        waited_for: str | None = None,
        token: str | None = None,
    ) -> Claim:
        """Start the first jobs of these models that there is room for: queued to running.

        Entries past their deadline or without a record, whatever their model, are ended here, as
        somebody has to; those of jobs that are final or run already are dropped. `waited_for` is
        what `await_entry` gave: it is taken like the others, or goes back to the front. `token`
        stands for this claim, also where the client tries again by itself: a claim with the token
        of the worker's last one, whose reply was lost, gives what that one took.
        """
        args: list[Scalar] = [task, worker, lease_s, self._ttl_s, _rq_now()]
        args += [_rq_text("refused: no such job"), token or secrets.token_hex(8)]
        args += [_MAX_ENTRIES_SEEN, _as_bytes(waited_for or "")]
        args += [room.max_jobs, room.rows_of_new_group, len(room.rows)]
        for group, num_rows in room.rows.items():
            args += [group, num_rows]
        args += models
        claimed, refused, others = self._claim(args=args)
        records = [_claimed(fields, worker) for fields in claimed]
        return Claim(
            [record for record in records if isinstance(record, Record)],
            [record for record in records if isinstance(record, Finished)],
            [as_text(entry) for entry in refused],
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
        for ending in endings:
            args += [ending.job_id, ending.attempt, *_final_args(ending.outcome)]
        return [bool(is_current) for is_current in self._finish(args=args)]

    def cancel(self, job_id: str) -> Record | None:
        """End a queued job at once, ask a running one to stop; final ones stay as they are."""
        self._cancel(args=[job_id, self._ttl_s])
        return self.get(job_id)

    def release(self, job_id: str, attempt: int) -> bool:
        """Put a running job back at the front of its queue; False if the attempt is stale.

        A job whose cancel was requested is canceled instead.
        """
        return bool(self._release(args=[job_id, attempt, self._ttl_s]))

    def unstick(self, task: Task, entry: str) -> bool:
        """Put back an entry that a dying worker left outside the queue, unless its job has run."""
        return bool(self._unstick(args=[task, _as_bytes(entry)]))

    def expire_queued(self) -> int:
        """End the jobs that are queued past their deadline; returns how many those were."""
        return int(self._expire(args=[self._ttl_s]))

    def await_entry(self, task: Task, timeout_s: float) -> str | None:
        """Move the first entry that comes to RQ's intermediate list; None when time is up.

        It is for `claim` to take from there; whoever dies before that leaves it to the reaper.
        """
        job_id = self._redis.blmove(queue_key(task), intermediate_key(task), timeout_s)  # type: ignore[arg-type]  # seconds may be a float
        return None if job_id is None else as_text(job_id)

    def handed_over(self, task: Task) -> list[str]:
        """The ids between queue and worker: for milliseconds, unless a worker died just there."""
        entries = self._redis.lrange(intermediate_key(task), 0, -1)
        return [as_text(entry) for entry in entries]

    def are_over(self, job_ids: Sequence[str]) -> dict[str, bool]:
        """Whether each will run no more: it is final, or past its deadline.

        Those without a record are left out.
        """
        if not job_ids:
            return {}
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hmget(record_key(job_id), "state", "deadline_at")
            found = pipeline.execute()
        now = self.now()
        return {
            job_id: JobState(as_text(state)).is_final
            or (deadline_at is not None and float(deadline_at) <= now)
            for job_id, (state, deadline_at) in zip(job_ids, found, strict=True)
            if state is not None
        }

    def overdue(self, task: Task, now: float) -> list[str]:
        """The running jobs whose lease has run out."""
        members = self._redis.zrangebyscore(running_key(task), "-inf", now)
        return [as_text(member) for member in cast(list[bytes | str], members)]

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
        return _running(fields[2:], worker, attempt)
    except ValueError as error:  # pydantic's as well
        logger.error("event=unreadable_record job=%s reason=%s", job_id, type(error).__name__)
        return Finished(job_id, attempt, _UNREADABLE)


def _running(fields: Sequence[bytes | str | None], worker: str, attempt: int) -> Record:
    *texts, images = fields
    if None in texts:
        raise ValueError("the record lacks a field")
    job, group, num_rows, num_steps, started_at = cast(list[bytes | str], texts)
    return Record(
        job=_parse_job(job, images or ""),
        group=as_text(group),
        num_rows=int(num_rows),
        state=JobState.RUNNING,
        attempt=attempt,
        step=0,
        num_steps=int(num_steps),
        is_cancel_requested=False,
        started_at=float(started_at),
        finished_at=None,
        result=None,
        failure=None,
        worker=worker,
    )


def _parse_job(text: bytes | str, images: bytes | str) -> AnyJob:
    job = JOB.validate_json(text)
    if isinstance(job, ClassifyJob) and images:
        return job.model_copy(update={"images": tuple(as_text(images).split(IMAGE_SEPARATOR))})
    return job


def _decode(items: Iterable[tuple[bytes | str, bytes | str]]) -> dict[str, str]:
    return {as_text(name): as_text(value) for name, value in items}


def as_text(value: bytes | str) -> str:
    """Read what Redis answers, whether or not its client decodes.

    A stranger's entry may be no UTF-8: `_as_bytes` gives back the bytes that were read.
    """
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


def _as_bytes(entry: str) -> bytes:
    return entry.encode(errors="surrogateescape")


def _optional_float(text: str | None) -> float | None:
    return None if text is None else float(text)
