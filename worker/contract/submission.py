"""Queue a job: what its record begins with, and the one call that writes it.

The API sends the call by a client of its own. Knows nothing of what becomes of the job (see
`records`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from redis import Redis
from rq.utils import utcformat

from worker.contract import record_scripts
from worker.contract.jobs import ClassifyJob, EmbeddingsJob, ImageJob, JobState
from worker.contract.record import (
    AnyJob,
    Record,
    Scalar,
    as_text,
    parse_record,
    without_inputs,
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
    """

    fingerprint: str
    results_digest: str
    reads_cache: bool
    joins_runs: bool


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What requests with one intent have in common (see `idempotency_script`).

    digest  of the key, of whose it is, and of the route
    asked   a digest of what was asked
    """

    digest: str
    asked: str


@dataclass(frozen=True, slots=True)
class Terms:
    """How a job is queued; by default as the library's own: by itself, however many wait.

    max_depth   where as many wait, only a caller with less than its share of them gets in
    reuse       whose answers it may have; needs ttl_s
    key         whose job it is, for who sends it again; needs ttl_s
    is_awaited  its client waits for the end, and cancels it by leaving; else it will come back
    keep_s      for how long its record is kept once it is final; None: as others are, and the job
                is in its caller's list
    ttl_s       for how long others are kept, and what is kept of results, from the last use, and
                of keys; None: nothing is, and there is no list
    """

    max_depth: int | None = None
    reuse: Reuse | None = None
    key: IdempotencyKey | None = None
    is_awaited: bool = False
    keep_s: int | None = None
    ttl_s: int | None = None


_ALONE = Terms()


@dataclass(frozen=True, slots=True)
class Joined:
    """An equal job waits or runs: what becomes of that one becomes of this one too."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The job is over: its result is that of an equal one before it."""

    record: Record


@dataclass(frozen=True, slots=True)
class Attached:
    """Its idempotency key has a job already, in whatever state: nothing was queued."""

    job_id: str
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class KeyReused:
    """Its idempotency key has a job for which something else was asked: nothing was queued."""


@dataclass(frozen=True, slots=True)
class TooDeep:
    """As many jobs wait as may, and the caller has its share of them: nothing was queued."""

    depth: int  # with the jobs that share a run
    num_of_caller: int
    oldest_created_at: float | None


Submission: TypeAlias = Queued | Joined | Answered | Attached
Refusal: TypeAlias = KeyReused | TooDeep


def group_of(job: AnyJob) -> str:
    """Name the jobs whose rows may share a forward: of one model, and as many tokens.

    Those of an image are of its area, whatever the sides, and of its texts.
    """
    if isinstance(job, ImageJob):
        of_texts = "" if job.max_sequence_length is None else f"/{job.max_sequence_length}"
        return f"{job.model}/{job.width * job.height}{of_texts}"
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


def submission(job: AnyJob, terms: Terms = _ALONE) -> ScriptCall:
    """Queue the job, its record, RQ's entry and its first event, on these terms."""
    created_at = utcformat(datetime.fromtimestamp(job.created_at, UTC))
    enqueued_at = utcformat(datetime.now(UTC))
    limit = "inf" if terms.max_depth is None else terms.max_depth
    args: list[Scalar] = [job.id, job.task, job.caller, limit]
    args += ["" if job.deadline_at is None else job.deadline_at, created_at, enqueued_at]
    args += _reuse_args(job, terms.reuse)
    args.append(0 if terms.ttl_s is None else terms.ttl_s)
    is_listed = terms.ttl_s is not None and terms.keep_s is None
    args.append(job.created_at if is_listed else "")
    args += ["", ""] if terms.key is None else [terms.key.digest, terms.key.asked]
    args.append(job.id if terms.is_awaited else "")
    args += [part for field in _fields(job, terms).items() for part in field]
    return ScriptCall(record_scripts.SUBMIT, args)


def _reuse_args(job: AnyJob, reuse: Reuse | None) -> list[Scalar]:
    if reuse is None:
        return ["", 0, ""]
    least_deadline = _half_of_its_time(job) if reuse.joins_runs else ""
    return [reuse.fingerprint, int(reuse.reads_cache), least_deadline]


def withdrawal(job_id: str, reuse: Reuse) -> ScriptCall:
    """Undo a submit that was answered by a kept result which is of no use, and drop that."""
    return ScriptCall(record_scripts.WITHDRAW_ANSWER, [job_id, reuse.fingerprint])


def parse_submission(reply: Sequence[int | bytes | str]) -> Submission | Refusal:
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
        case "attached":
            return Attached(str(said[0]), JobState(str(said[1])).is_final)
        case "key_reused":
            return KeyReused()
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


def _fields(job: AnyJob, terms: Terms) -> dict[str, Scalar]:
    """What the record begins with."""
    rest, inputs = without_inputs(job)
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
        "job": rest.model_dump_json(),
    }
    if inputs:
        fields["inputs"] = inputs
    if job.deadline_at is not None:
        fields["deadline_at"] = job.deadline_at
    if terms.reuse is not None:
        fields["fingerprint"] = terms.reuse.fingerprint
        fields["results_digest"] = terms.reuse.results_digest
    if terms.keep_s is not None:
        fields["keep_s"] = terms.keep_s
    return fields
