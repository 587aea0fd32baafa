"""The job object of `GET /v1/jobs/{id}` and of every 202."""

from typing import Literal

from pydantic import Field

from service.errors import ErrorBody, ended_error, failure_body
from service.schemas.classify import ClassifyResponse
from service.schemas.embeddings import EmbeddingsResponse
from service.schemas.fields import ResponseBody
from service.schemas.images import ImagesResponse
from worker.contract.jobs import JobState, Task
from worker.contract.records import Record

JobType = Literal["image.generation", "image.classification", "text.embedding"]
JobStatus = Literal["queued", "running", "canceling", "succeeded", "failed", "canceled", "expired"]
JobResult = ImagesResponse | ClassifyResponse | EmbeddingsResponse

JOB_TYPES: dict[Task, JobType] = {
    Task.IMAGES: "image.generation",
    Task.CLASSIFY: "image.classification",
    Task.EMBEDDINGS: "text.embedding",
}


class Progress(ResponseBody):
    step: int
    total_steps: int
    fraction: float = Field(description="0 to 1")


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
    created_at: float
    started_at: float | None
    finished_at: float | None
    deadline_at: float | None = Field(description="not finished by then: expired")
    expires_at: float | None = Field(description="when a finished job is forgotten")
    queue_position: int | None = Field(description="jobs before this one, while it waits")
    progress: Progress | None = Field(description="of an image job")
    attempt: int = Field(description="runs so far; more than one after the loss of a worker")
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
        return cls(
            id=record.id,
            type=JOB_TYPES[record.task],
            status=_status(record),
            created_at=record.job.created_at,
            started_at=record.started_at,
            finished_at=finished_at,
            deadline_at=record.job.deadline_at,
            expires_at=None if finished_at is None else finished_at + result_ttl_s,
            queue_position=queue_position,
            progress=_progress(record),
            attempt=record.attempt,
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
