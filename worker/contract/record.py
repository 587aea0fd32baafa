"""One job's record, as it is read: a Redis hash, and the names of the keys around it.

Who changes it, and when, is in `records`. Free of torch; knows nothing of HTTP and models.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as validated_dataclass
from rq.queue import Queue

from worker.contract import script_prelude
from worker.contract.jobs import (
    JOB,
    RESULT,
    ClassifyJob,
    ClassifyResult,
    EmbeddingsJob,
    EmbeddingsResult,
    Failure,
    ImageJob,
    ImageResult,
    JobState,
    Task,
)

# What `parse_record` reads of a record, but for the inputs' bytes.
STATUS_FIELDS = (
    *("job", "group", "num_rows", "state", "attempt", "step", "num_steps", "cancel_requested"),
    *("started_at", "finished_at", "result", "failure", "worker", "past_attempts"),
    *("abandoned_at", "keep_s", "is_forgotten"),
)
FIELDS_BUT_RESULT = tuple(field for field in STATUS_FIELDS if field != "result")  # can be megabytes
# Between a record's images: no letter of base64, so that megabytes need no escaping, which as JSON
# held the API's event loop for 20 times as long.
_IMAGE_SEPARATOR = ","

AnyJob: TypeAlias = ImageJob | ClassifyJob | EmbeddingsJob
AnyResult: TypeAlias = ImageResult | ClassifyResult | EmbeddingsResult
EndedEarly: TypeAlias = Literal[JobState.CANCELED, JobState.EXPIRED]
Outcome: TypeAlias = AnyResult | Failure | EndedEarly
Scalar: TypeAlias = bytes | bytearray | memoryview | str | int | float  # what Redis stores


@validated_dataclass(frozen=True, slots=True)
class PastAttempt:
    """A run that ended without an outcome. Times are Unix seconds, of Redis' clock."""

    attempt: int
    worker: str
    started_at: float
    ended_at: float
    end: Literal["worker_lost", "given_back"]


@dataclass(frozen=True, slots=True)
class Record:
    """A snapshot. The images or texts of a job are gone once its state is final."""

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
    past_attempts: tuple[PastAttempt, ...] = ()  # without the last one
    keep_s: float | None = None  # how long it is kept once it is final; None: as others are

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def task(self) -> Task:
        return self.job.task

    def expires_at(self, result_ttl_s: float) -> float | None:
        """When it is forgotten, in Unix seconds; None where it is not final."""
        if self.finished_at is None:
            return None
        return self.finished_at + (result_ttl_s if self.keep_s is None else self.keep_s)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """As much of a record as the care for its files needs."""

    state: JobState  # of the run: it may go on for others when its first client has canceled it
    attempt: int
    deadline_at: float | None

    def is_over(self, now: float) -> bool:
        """Whether the job will run no more."""
        is_late = self.deadline_at is not None and self.deadline_at <= now
        return self.state.is_final or is_late


_Texts: TypeAlias = tuple[str | tuple[int, ...], ...]
_TEXTS: TypeAdapter[_Texts] = TypeAdapter(_Texts)
_PAST_ATTEMPTS: TypeAdapter[tuple[PastAttempt, ...]] = TypeAdapter(tuple[PastAttempt, ...])


def record_key(job_id: str) -> str:
    return f"{script_prelude.RECORD_PREFIX}{job_id}"


def running_key(task: Task) -> str:
    return f"{script_prelude.RUNNING_PREFIX}{task}"


def waiting_key(task: Task) -> str:
    """The sorted set of the ids that wait, by arrival: its size is the depth of the queue."""
    return f"{script_prelude.WAITING_PREFIX}{task}"


def queue_name(task: Task) -> str:
    return f"{script_prelude.QUEUE_NAME_PREFIX}{task}"


def queue_key(task: Task) -> str:
    """RQ's list of the ids that wait, for RQ's own tools; nothing is taken from it."""
    return f"{Queue.redis_queue_namespace_prefix}{queue_name(task)}"


def parse_record(mapping: Mapping[str, str]) -> Record | None:
    """Read what `HGETALL` gave, decoded; None where there is no such record."""
    if not mapping or "is_forgotten" in mapping:
        return None
    result, failure = mapping.get("result"), mapping.get("failure")
    # canceled by its client, though its run goes on for those that share it
    abandoned_at = mapping.get("abandoned_at")
    return Record(
        job=parse_job(mapping["job"], mapping.get("inputs", "")),
        group=mapping["group"],
        num_rows=int(mapping["num_rows"]),
        state=JobState(mapping["state"]) if abandoned_at is None else JobState.CANCELED,
        attempt=int(mapping["attempt"]),
        step=int(mapping["step"]),
        num_steps=int(mapping["num_steps"]),
        is_cancel_requested=mapping["cancel_requested"] == "1" or abandoned_at is not None,
        started_at=_optional_float(mapping.get("started_at")),
        finished_at=_optional_float(abandoned_at or mapping.get("finished_at")),
        result=None if result is None else RESULT.validate_json(result),
        failure=None if failure is None else Failure.model_validate_json(failure),
        worker=mapping.get("worker"),
        past_attempts=_PAST_ATTEMPTS.validate_json(mapping.get("past_attempts", "[]")),
        keep_s=_optional_float(mapping.get("keep_s")),
    )


def parse_claimed(fields: Sequence[bytes | str | None], worker: str, attempt: int) -> Record:
    """Read a record that has just become running, from what differs between such.

    Raises ValueError for one that another version wrote, or nobody of us.
    """
    *texts, inputs = fields
    if None in texts:
        raise ValueError("the record lacks a field")
    job, group, num_rows, num_steps, started_at = cast(list[bytes | str], texts)
    return Record(
        job=parse_job(job, inputs or ""),
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


def without_inputs(job: AnyJob) -> tuple[AnyJob, bytes]:
    """The job without its images or texts, and these, as a record has them.

    Apart, so that who asks how a job stands does not read its megabytes, and a final record is
    without them. In bytes, which are joined with the GIL released.
    """
    match job:
        case ClassifyJob():
            images = _IMAGE_SEPARATOR.encode().join(image.encode() for image in job.images)
            return job.model_copy(update={"images": ()}), images
        case EmbeddingsJob():
            return job.model_copy(update={"texts": ()}), _TEXTS.dump_json(job.texts)
        case ImageJob():
            return job, b""


def parse_job(text: bytes | str, inputs: bytes | str) -> AnyJob:
    job = JOB.validate_json(text)
    match job:
        case ClassifyJob() if inputs:
            return job.model_copy(update={"images": tuple(as_text(inputs).split(_IMAGE_SEPARATOR))})
        case EmbeddingsJob() if inputs:
            return job.model_copy(update={"texts": _TEXTS.validate_json(inputs)})
        case _:
            return job


def decoded(items: Iterable[tuple[bytes | str, bytes | str]]) -> dict[str, str]:
    return {as_text(name): as_text(value) for name, value in items}


def as_text(value: bytes | str) -> str:
    """Read what Redis answers, whether or not its client decodes.

    A stranger's entry may be no UTF-8; its bytes are kept by surrogates.
    """
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


def _optional_float(text: str | None) -> float | None:
    return None if text is None else float(text)
