"""The job object of `GET /v1/jobs/{id}` and of every 202."""

from typing import Literal

from pydantic import Field

from service.errors import ErrorBody, ended_error, failure_body
from service.schemas.classify import ClassifyResponse
from service.schemas.embeddings import EmbeddingsResponse
from service.schemas.fields import ResponseBody
from service.schemas.images import ImagesResponse
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


_ENDS: dict[JobState, AttemptEnd] = {
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELED: "canceled",
    JobState.EXPIRED: "expired",
}


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


class JobObject(ResponseBody):
    """One job. Times are Unix seconds; what has not happened yet is null."""

    id: str
    object: Literal["job"] = "job"
    type: JobType
    status: JobStatus
    priority: Priority
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
        description="as the synchronous answer, images by URL and embeddings as floats"
    )
    error: ErrorBody | None
    urls: JobUrls

    @classmethod
    def from_record(
        cls,
        record: Record,
        queue_position: int | None,
        result: JobResult | None,
        result_ttl_s: float,
    ) -> "JobObject":
        finished_at = record.finished_at
        kept_s = result_ttl_s if record.keep_s is None else record.keep_s
        return cls(
            id=record.id,
            type=JOB_TYPES[record.task],
            status=_status(record),
            priority=record.job.priority,
            created_at=record.job.created_at,
            started_at=record.started_at,
            finished_at=finished_at,
            deadline_at=record.job.deadline_at,
            expires_at=None if finished_at is None else finished_at + kept_s,
            queue_position=queue_position,
            progress=_progress(record),
            attempt=record.attempt,
            attempts=_attempts(record),
            model=record.job.model,
            result=result,
            error=_error(record),
            urls=_urls(f"/v1/jobs/{record.id}"),
        )


def _urls(path: str) -> JobUrls:
    return JobUrls(self=path, cancel=f"{path}/cancel", events=f"{path}/events")


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
