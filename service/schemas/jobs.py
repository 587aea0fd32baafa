"""The job object of `GET /v1/jobs/{id}` and of every 202."""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from pydantic_core import PydanticCustomError

from service.errors import ErrorBody, ended_error, failure_body
from service.schemas.classify import ClassifyRequest, ClassifyResponse
from service.schemas.embeddings import EmbeddingsRequest, EmbeddingsResponse
from service.schemas.fields import Absent, Name, PriorityField, RequestBody, ResponseBody, Text
from service.schemas.images import ImageRequest, ImagesResponse
from worker.contract.jobs import JobState, Priority, Task
from worker.contract.record import Record

JobType = Literal["image.generation", "image.classification", "text.embedding"]
JobStatus = Literal["queued", "running", "canceling", "succeeded", "failed", "canceled", "expired"]
AttemptEnd = Literal["worker_lost", "given_back", "succeeded", "failed", "canceled", "expired"]
JobResult = ImagesResponse | ClassifyResponse | EmbeddingsResponse

JOB_TYPES: dict[Task, JobType] = {
    Task.IMAGES: "image.generation",
    Task.CLASSIFY: "image.classification",
    Task.EMBEDDINGS: "text.embedding",
}
TASKS: dict[JobType, Task] = {job_type: task for task, job_type in JOB_TYPES.items()}


_ENDS: dict[JobState, AttemptEnd] = {
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELED: "canceled",
    JobState.EXPIRED: "expired",
}


_MAX_METADATA = 16  # OpenAI's limits
_MAX_KEY, _MAX_VALUE = 64, 512  # characters


def _are_few(metadata: object) -> object:
    if isinstance(metadata, dict) and len(metadata) > _MAX_METADATA:
        message = f"allowed: at most {_MAX_METADATA} pairs"
        raise PydanticCustomError("metadata", message)
    return metadata


def _are_short(metadata: dict[str, str]) -> dict[str, str]:
    for key, value in metadata.items():
        if not 1 <= len(key) <= _MAX_KEY or len(value) > _MAX_VALUE:
            got = f"a pair of {len(key)} and {len(value)} characters"
            allowed = f"allowed: keys of 1 to {_MAX_KEY}, values of at most {_MAX_VALUE}"
            raise PydanticCustomError("metadata", f"{got}; {allowed}")
    return metadata


def _separate(statuses: object) -> object:
    """queued,running is queued and running."""
    if not isinstance(statuses, list):
        return statuses
    return [status for text in statuses for status in str(text).split(",")]


class Progress(ResponseBody):
    step: int
    total_steps: int
    fraction: float = Field(description="0 to 1")


class Attempt(ResponseBody):
    """A run of the job, by one worker."""

    attempt: int = Field(description="from 1")
    worker: str
    started_at: float
    ended_at: float | None
    end: AttemptEnd | None = Field(
        description="worker_lost and given_back: the job waited again; null: it runs"
    )


class JobUrls(ResponseBody):
    self: str
    cancel: str
    events: str
    result: str


class JobObject(ResponseBody):
    """One job. Times are Unix seconds; what has not happened yet is null."""

    id: str
    object: Literal["job"] = "job"
    type: JobType
    status: JobStatus
    priority: Priority
    metadata: dict[str, str]
    end_user: Absent[str] = Field(
        default=None, description="SHA-256 of the request's `safety_identifier`, or `user`"
    )
    created_at: float
    started_at: float | None
    finished_at: float | None
    deadline_at: float | None = Field(description="not finished by then: expired")
    expires_at: float | None = Field(description="when a finished job is forgotten")
    queue_position: int | None = Field(description="jobs before this one, while it waits")
    progress: Progress | None = Field(description="of an image job")
    attempt: int = Field(description="runs so far; more than one after the loss of a worker")
    attempts: list[Attempt] = Field(description="these runs, in order")
    model: str
    result: JobResult | None = Field(
        description="as the synchronous answer, images by URL and embeddings as floats; null in a "
        "list"
    )
    error: ErrorBody | None
    urls: JobUrls

    @classmethod
    def from_record(
        cls,
        record: Record,
        queue_position: int | None,
        result_ttl_s: float,
    ) -> "JobObject":
        """Without the result."""
        return cls(
            id=record.id,
            type=JOB_TYPES[record.task],
            status=_status(record),
            priority=record.job.priority,
            metadata=record.job.metadata,
            end_user=record.job.end_user,
            created_at=record.job.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            deadline_at=record.job.deadline_at,
            expires_at=record.expires_at(result_ttl_s),
            queue_position=queue_position,
            progress=_progress(record),
            attempt=record.attempt,
            attempts=_attempts(record),
            model=record.job.model,
            result=None,
            error=_error(record),
            urls=_urls(f"/v1/jobs/{record.id}"),
        )


class JobListObject(ResponseBody):
    """A page of the caller's jobs, newest first, without their results."""

    object: Literal["list"] = "list"
    data: list[JobObject]
    first_id: str | None
    last_id: str | None = Field(description="the next page is `after` this")
    has_more: bool


_INPUT = (
    "the JSON body of the task's own route; how an answer would look, such as `response_format`, "
    "means nothing here"
)


class _JobRequest(RequestBody):
    """What to do, as the body of the task's own route says it, and how."""

    priority: PriorityField = None
    expires_in: int | None = Field(
        None, ge=1, description="seconds to the deadline; null: as many as the service allows"
    )
    # counted before: pydantic makes an error of each pair
    metadata: (
        Annotated[dict[Text, Text], BeforeValidator(_are_few), AfterValidator(_are_short)] | None
    ) = Field(
        None,
        description=f"the client's own words, which the job object repeats: at most "
        f"{_MAX_METADATA} pairs, keys of 1 to {_MAX_KEY} characters, values of at most "
        f"{_MAX_VALUE}",
        examples=[{"order": "1234"}],
    )


class JobRequest(_JobRequest):
    """Its input is read as its task's own route reads a body."""

    type: JobType
    input: dict[str, object]


class ImageJobRequest(_JobRequest):
    type: Literal["image.generation"]
    input: ImageRequest = Field(description=_INPUT)


class ClassifyJobRequest(_JobRequest):
    type: Literal["image.classification"]
    input: ClassifyRequest = Field(description=_INPUT)


class EmbeddingsJobRequest(_JobRequest):
    type: Literal["text.embedding"]
    input: EmbeddingsRequest = Field(description=_INPUT)


JOB_REQUESTS = (ImageJobRequest, ClassifyJobRequest, EmbeddingsJobRequest)  # for the description


class JobListQuery(BaseModel):
    """Which jobs to list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Annotated[list[JobStatus], BeforeValidator(_separate)] = Field(
        default_factory=list,
        description="one or more, with commas between them or repeated; none: of any",
        examples=[["queued", "running"]],
    )
    type: JobType | None = Field(None, description="none: of any")
    model: Name | None = Field(None, description="the name of its card; none: of any")
    limit: int = Field(20, ge=1, le=100)
    after: Annotated[str, Field(pattern="^job_[0-9a-f]{32}$")] | None = Field(
        None,
        description="the `last_id` of the page before; nothing comes after one that is not listed",
    )


def _urls(path: str) -> JobUrls:
    return JobUrls(
        self=path, cancel=f"{path}/cancel", events=f"{path}/events", result=f"{path}/result"
    )


def _status(record: Record) -> JobStatus:
    if record.state is JobState.RUNNING and record.is_cancel_requested:
        return "canceling"
    return record.state.value


def _attempts(record: Record) -> list[Attempt]:
    attempts = [
        Attempt(
            attempt=past.attempt,
            worker=past.worker,
            started_at=past.started_at,
            ended_at=past.ended_at,
            end=past.end,
        )
        for past in record.past_attempts
    ]
    is_last_past = bool(attempts) and attempts[-1].attempt == record.attempt
    if record.worker is None or record.started_at is None or is_last_past:
        return attempts  # it waits, or has ended without another run
    last = Attempt(
        attempt=record.attempt,
        worker=record.worker,
        started_at=record.started_at,
        ended_at=record.finished_at,
        end=_ENDS.get(record.state),
    )
    return [*attempts, last]


def _progress(record: Record) -> Progress | None:
    if record.task is not Task.IMAGES:
        return None
    fraction = round(record.step / record.num_steps, 4)
    return Progress(step=record.step, total_steps=record.num_steps, fraction=fraction)


def _error(record: Record) -> ErrorBody | None:
    if record.failure is not None:
        return failure_body(record.failure)
    if record.state is JobState.EXPIRED:
        return ended_error(record.id, record.state).body
    return None
