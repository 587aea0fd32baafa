"""Queue a job: what its record begins with, and the one call that writes it.

The API sends the call by a client of its own. Knows nothing of what becomes of the job (see
`records`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from redis import Redis
from rq.utils import utcformat

from worker.contract import record_scripts
from worker.contract.jobs import ClassifyJob, EmbeddingsJob, ImageJob, JobState
from worker.contract.record import (
    IMAGE_SEPARATOR,
    AnyJob,
    Record,
    Scalar,
    as_text,
    parse_record,
)


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """A script and its arguments, for a client of any kind to send."""

    script: str
    args: list[Scalar]


@dataclass(frozen=True, slots=True)
class Queued:
    position: int  # how many jobs stand before it


@dataclass(frozen=True, slots=True)
class Reuse:
    """How a job may have the answer of an equal one (see `sharing_script`).

    fingerprint     equal ones have the same answer
    results_digest  the model card's: an answer is kept only of a worker that serves this
    reads_cache     it may be answered by what is kept of one that is over
    joins_runs      it may share the run of one that is not
    ttl_s           for how long what is kept lasts from its last use
    """

    fingerprint: str
    results_digest: str
    reads_cache: bool
    joins_runs: bool
    ttl_s: int


@dataclass(frozen=True, slots=True)
class Joined:
    """An equal job waits or runs: what becomes of that one becomes of this one too."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The job is over: its result is that of an equal one before it."""

    record: Record


@dataclass(frozen=True, slots=True)
class TooDeep:
    """As many jobs wait as may, and the caller has its share of them: nothing was queued."""

    depth: int  # with the jobs that share a run
    num_of_caller: int
    oldest_created_at: float | None


def group_of(job: AnyJob) -> str:
    """Name the jobs whose rows may share a forward: of one model, and images of one area.

    As many pixels are as many patches, whatever their sides.
    """
    if isinstance(job, ImageJob):
        return f"{job.model}/{job.width * job.height}"
    return job.model


def num_rows_of(job: AnyJob) -> int:
    """How many places a job takes in forwards: one for each input or image to paint.

    A negative prompt doubles them.
    """
    match job:
        case ImageJob():
            return len(job.seeds) * (1 if job.negative is None else 2)
        case ClassifyJob():
            return len(job.images)
        case EmbeddingsJob():
            return len(job.texts)


def cost_of(job: AnyJob) -> float:
    """How much work a job is, among the jobs of its queue: rows, or rows by steps by megapixels."""
    num_rows = num_rows_of(job)
    if isinstance(job, ImageJob):
        return num_rows * job.num_steps * job.width * job.height / 2**20
    return float(num_rows)


def submission(
    job: AnyJob,
    max_depth: int | None = None,
    reuse: Reuse | None = None,
    keep_s: int | None = None,
) -> ScriptCall:
    """Queue the job, record and RQ's entry and first event, unless `max_depth` jobs wait.

    Where as many do, a caller that has less than its share of them still gets in. With `reuse` it
    may share a run instead, or be over at once. `keep_s` is for how long its record is kept once it
    is final; None: as others are.
    """
    created_at = utcformat(datetime.fromtimestamp(job.created_at, UTC))
    enqueued_at = utcformat(datetime.now(UTC))
    limit = "inf" if max_depth is None else max_depth
    args: list[Scalar] = [job.id, job.task, job.caller, limit]
    args += ["" if job.deadline_at is None else job.deadline_at, created_at, enqueued_at]
    if reuse is None:
        args += ["", 0, "", 0]
    else:
        least_deadline = _half_of_its_time(job) if reuse.joins_runs else ""
        args += [reuse.fingerprint, int(reuse.reads_cache), least_deadline, reuse.ttl_s]
    fields = _fields(job)
    if reuse is not None:
        fields |= {"fingerprint": reuse.fingerprint, "results_digest": reuse.results_digest}
    if keep_s is not None:
        fields["keep_s"] = keep_s
    args += [part for field in fields.items() for part in field]
    return ScriptCall(record_scripts.SUBMIT, args)


def withdrawal(job_id: str, reuse: Reuse) -> ScriptCall:
    """Undo a submit that was answered by a kept result which is of no use, and drop that."""
    return ScriptCall(record_scripts.WITHDRAW_ANSWER, [job_id, reuse.fingerprint])


def parse_submission(reply: Sequence[int | bytes | str]) -> Queued | Joined | Answered | TooDeep:
    """Read what the call of `submission` answered."""
    kind, *said = (part if isinstance(part, int) else as_text(part) for part in reply)
    match kind:
        case "queued":
            return Queued(position=int(said[0]))
        case "joined":
            return Joined()
        case "answered":
            record = parse_record(dict(zip(map(str, said[::2]), map(str, said[1::2]), strict=True)))
            assert record is not None, "this is a bug: an answer without a record"
            return Answered(record)
        case _:
            return TooDeep(int(said[0]), int(said[1]), float(said[2]) if said[2] else None)


def _half_of_its_time(job: AnyJob) -> float:
    """Until when a run must be allowed to last for the job to share it.

    A run that is cut off sooner may leave it too little time for its own.
    """
    if job.deadline_at is None:
        return math.inf
    return (job.created_at + job.deadline_at) / 2


def enqueue(redis: Redis, job: AnyJob) -> None:
    """Queue a job, however many wait."""
    call = submission(job)
    redis.register_script(call.script)(args=call.args)


def _fields(job: AnyJob) -> dict[str, Scalar]:
    """What the record begins with."""
    fields: dict[str, Scalar] = {
        "task": job.task,
        "model": job.model,
        "group": group_of(job),
        "num_rows": num_rows_of(job),
        "cost": cost_of(job),
        "caller": job.caller,
        "priority": job.priority,
        "state": JobState.QUEUED,
        "attempt": 0,
        "created_at": job.created_at,
        "step": 0,
        "num_steps": job.num_steps if isinstance(job, ImageJob) else 0,
        "cancel_requested": 0,
    }
    if isinstance(job, ClassifyJob):
        # apart from the job, so that a final record keeps the job without its megabytes
        fields["images"] = IMAGE_SEPARATOR.join(job.images)
        job = job.model_copy(update={"images": ()})
    if job.deadline_at is not None:
        fields["deadline_at"] = job.deadline_at
    fields["job"] = job.model_dump_json()
    return fields
