"""How a job becomes a response: 200 with its result, 202 with the job, or an error.

The one place where the three tasks share a road; what a result looks like is in `schemas`.
"""

import base64
from collections.abc import Awaitable, Callable

from anyio import to_thread
from fastapi import Request, Response

from service.dependencies import Parts, Preference
from service.errors import (
    ErrorEnvelope,
    NotFoundError,
    QueueFullError,
    SyncWaitError,
    ended_error,
    failure_error,
    lost_error,
    shown,
)
from service.schemas.classify import ClassifyResponse
from service.schemas.embeddings import EmbeddingsResponse
from service.schemas.fields import ResponseBody
from service.schemas.images import ImageItem, ImagesResponse
from service.schemas.jobs import JobObject, JobResult
from worker.contract.jobs import (
    ClassifyResult,
    EmbeddingsResult,
    Failure,
    FailureCode,
    ImageResult,
)
from worker.contract.records import AnyJob, AnyResult, Record

_POLL_AFTER_S = "1"  # what `Retry-After` advises who polls an unfinished job

Respond = Callable[[Record], Awaitable[ResponseBody]]

ERRORS: dict[int | str, dict[str, object]] = {
    "4XX": {"model": ErrorEnvelope, "description": "the request cannot be served as it is"},
    "5XX": {"model": ErrorEnvelope, "description": "the service or the job failed"},
}


async def run(
    job: AnyJob, parts: Parts, preference: Preference, request: Request, respond: Respond
) -> Response:
    """Submit the job and answer as the caller prefers: wait for its result, or not."""
    request.state.job_id = job.id  # for the request's line in the log
    with parts.jobs.listening(job.id) as wait:
        await _submit(job, parts)
        if preference.is_async and preference.wait_s is None:
            return await _accepted(job.id, parts, preference, request)
        longest_s = parts.settings.sync_wait_s
        wait_s = longest_s if preference.wait_s is None else min(longest_s, preference.wait_s)
        try:
            record = await wait(wait_s)
        except SyncWaitError:
            if preference.is_async:
                return await _accepted(job.id, parts, preference, request)
            parts.metrics.sync_wait_timeouts.labels(job.task.value).inc()
            raise
    _check_succeeded(record)
    response = json_response(await respond(record))
    response.headers["x-job-id"] = job.id
    _note_preference(response, preference)
    return response


async def _submit(job: AnyJob, parts: Parts) -> None:
    try:
        await parts.jobs.submit(job)
    except QueueFullError:
        parts.metrics.admission_rejections.labels(job.task.value, "queue_full").inc()
        raise
    parts.metrics.jobs_enqueued.labels(job.task.value, job.model).inc()


async def _accepted(
    job_id: str, parts: Parts, preference: Preference, request: Request
) -> Response:
    record = await parts.jobs.get(job_id)
    if record is None:
        raise lost_error(job_id)
    response = json_response(await job_object(record, parts, request), 202)
    _note_preference(response, preference)
    response.headers["location"] = f"/v1/jobs/{job_id}"
    response.headers["retry-after"] = _POLL_AFTER_S
    return response


def _check_succeeded(record: Record) -> None:
    if record.failure is not None:
        raise failure_error(record.id, record.failure)
    if record.result is None:
        raise ended_error(record.id, record.state)


def json_response(body: ResponseBody, status: int = 200) -> Response:
    return Response(body.model_dump_json(), status, media_type="application/json")


def _note_preference(response: Response, preference: Preference) -> None:
    applied = preference.applied()
    if applied is not None:
        response.headers["preference-applied"] = applied


def found(job_id: str, record: Record | None) -> Record:
    if record is None:
        raise NotFoundError("job_not_found", f"job {shown(job_id)} does not exist or has expired")
    return record


async def job_response(record: Record, parts: Parts, request: Request) -> Response:
    response = json_response(await job_object(record, parts, request))
    if not record.state.is_final:
        response.headers["retry-after"] = _POLL_AFTER_S
    return response


async def job_object(record: Record, parts: Parts, request: Request) -> JobObject:
    position = await parts.jobs.queue_position(record)
    result = None if record.result is None else _job_result(record, record.result, parts, request)
    return JobObject.from_record(record, position, result, parts.settings.result_ttl_s)


def _job_result(record: Record, result: AnyResult, parts: Parts, request: Request) -> JobResult:
    if isinstance(result, ClassifyResult):
        return ClassifyResponse.from_result(record, result)
    if isinstance(result, EmbeddingsResult):
        return EmbeddingsResponse.from_result(record, result, "float")
    return ImagesResponse.from_result(record, result, url_items(result, parts, request))


async def inline_items(record: Record, result: ImageResult, parts: Parts) -> list[ImageItem]:
    """The images themselves, read in a thread."""
    names = [image.file_name for image in result.images]
    try:
        files = await to_thread.run_sync(lambda: [parts.image_files.read(name) for name in names])
    except FileNotFoundError as error:
        failure = Failure(code=FailureCode.STORAGE, message=f"file {error.filename} is gone")
        raise failure_error(record.id, failure) from error
    return [
        ImageItem(
            b64_json=base64.b64encode(png).decode("ascii"),
            seed=image.seed,
            width=image.width,
            height=image.height,
        )
        for image, png in zip(result.images, files, strict=True)
    ]


def url_items(result: ImageResult, parts: Parts, request: Request) -> list[ImageItem]:
    prefix = (parts.settings.public_base_url or str(request.base_url)).rstrip("/")
    return [
        ImageItem(
            url=f"{prefix}/v1/images/{image.file_name}",
            seed=image.seed,
            width=image.width,
            height=image.height,
        )
        for image in result.images
    ]
