"""Queue a job: what its record begins with, and the one call that writes it.

The API sends the call by a client of its own. Knows nothing of what becomes of the job (see
`records`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from redis import Redis
from rq.utils import utcformat

from worker.contract import record_scripts
from worker.contract.jobs import ClassifyJob, EmbeddingsJob, ImageJob, JobState
from worker.contract.records import IMAGE_SEPARATOR, AnyJob, Scalar, as_text


@dataclass(frozen=True, slots=True)
class Submission:
    """A call of the one script that queues a job; `parse_submission` reads what it returns."""

    script: str
    args: list[Scalar]


@dataclass(frozen=True, slots=True)
class Queued:
    position: int  # how many jobs stand before it


@dataclass(frozen=True, slots=True)
class TooDeep:
    """As many jobs wait as may: nothing was queued."""

    depth: int
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


def submission(job: AnyJob, max_depth: int | None = None) -> Submission:
    """Queue the job, record and RQ's entry and first event, unless `max_depth` jobs wait."""
    created_at = utcformat(datetime.fromtimestamp(job.created_at, UTC))
    enqueued_at = utcformat(datetime.now(UTC))
    limit = "inf" if max_depth is None else max_depth
    args: list[Scalar] = [job.id, job.task, limit, created_at, enqueued_at, *_fields(job)]
    return Submission(record_scripts.SUBMIT, args)


def parse_submission(reply: Sequence[int | bytes | str]) -> Queued | TooDeep:
    is_queued, depth = int(reply[0]), int(reply[1])
    if is_queued:
        return Queued(position=depth)
    oldest = as_text(cast(bytes | str, reply[2]))
    return TooDeep(depth, float(oldest) if oldest else None)


def enqueue(redis: Redis, job: AnyJob) -> None:
    """Queue a job, however many wait."""
    call = submission(job)
    redis.register_script(call.script)(args=call.args)


def _fields(job: AnyJob) -> Iterator[Scalar]:
    """The record's fields and values, in turn."""
    fields: dict[str, Scalar] = {
        "task": job.task,
        "model": job.model,
        "group": group_of(job),
        "num_rows": num_rows_of(job),
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
    for name, value in fields.items():
        yield name
        yield value
