"""How a job becomes a response: 200 with its result, 202 with the job, or an error.

The one place where the three tasks share a road; what a result looks like is in `schemas`.
"""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from anyio import to_thread
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from service.dependencies import Parts, Preference, caller_of
from service.errors import (
    EndDelayedError,
    ErrorEnvelope,
    NotFoundError,
    QueueFullError,
    SyncWaitError,
    ended_error,
    failure_error,
    lost_error,
    shown,
)
from service.job_client import ClientLeftError, Wait
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
    Task,
)
from worker.contract.record import AnyJob, AnyResult, Record
from worker.contract.submission import Answered, Joined, Queued, Reuse

_REUSED: dict[type, str] = {Answered: "hit", Joined: "shared"}  # else the job has its own run
_BRIEFLY_S = 60
_POLL_AFTER_S = "1"  # what `Retry-After` advises who polls an unfinished job

Respond = Callable[[Record], Awaitable[ResponseBody]]

ERRORS: dict[int | str, dict[str, object]] = {
    "4XX": {"model": ErrorEnvelope, "description": "the request cannot be served as it is"},
    "5XX": {"model": ErrorEnvelope, "description": "the service or the job failed"},
}

_HEADERS = {
    "x-cache": {
        "description": "hit: answered by the kept result of an equal job; shared: it has the run "
        "of an equal job that is not over; absent: it has a run of its own",
        "schema": {"type": "string", "enum": ["hit", "shared"]},
    }
}


def answers_with(model: type[ResponseBody]) -> dict[int | str, dict[str, object]]:
    """What a route that submits jobs answers, for its description."""
    done = {"model": model, "headers": _HEADERS}
    return {200: done, 202: {"model": JobObject, "headers": _HEADERS}, **ERRORS}


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is about to be submitted, and whose answers it may have."""

    job: AnyJob
    reuse: Reuse | None


async def run(
    new: NewJob, parts: Parts, preference: Preference, request: Request, respond: Respond
) -> Response:
    """Submit the job and answer as the caller prefers: wait for its result, or not."""
    job = new.job.model_copy(update={"caller": caller_of(request)})
    request.state.job_id = job.id  # for the request's line in the log
    with parts.jobs.listening(job.id) as wait:
        submitted = await _submit(NewJob(job, new.reuse), parts, _keep_s(job, preference))
        if preference.is_async and preference.wait_s is None:
            record = None
        elif isinstance(submitted, Answered):
            record = submitted.record
        else:
            record = await _end_of(job, wait, parts, preference, request)
    if record is None:
        response = await _accepted(job.id, parts, request)
    else:
        _check_succeeded(record)
        response = json_response(await respond(record))
    response.headers["x-job-id"] = job.id
    if (reused := _REUSED.get(type(submitted))) is not None:
        response.headers["x-cache"] = reused
    _note_preference(response, preference)
    return response


async def _end_of(
    job: AnyJob, wait: Wait, parts: Parts, preference: Preference, request: Request
) -> Record | None:
    """Wait for the final record; None where the client is to come back for it.

    Where it leaves, the job is not to be run for nobody.
    """
    longest_s = parts.settings.sync_wait_s
    wait_s = longest_s if preference.wait_s is None else min(longest_s, preference.wait_s)
    try:
        return await wait(wait_s, None if preference.is_async else lambda: _leaving(request))
    except ClientLeftError:
        parts.metrics.jobs.client_disconnects.labels(job.task.value).inc()
        parts.job_changes.cancel(job.id)
        raise ClientDisconnect from None
    except EndDelayedError:
        parts.job_changes.keep(job.id)
        raise
    except SyncWaitError:
        parts.job_changes.keep(job.id)
        if preference.is_async:
            return None
        parts.metrics.jobs.wait_timeouts.labels(job.task.value).inc()
        raise


async def _leaving(request: Request) -> None:
    """Wait until the client closes its connection, whose request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _keep_s(job: AnyJob, preference: Preference) -> int | None:
    """How long to keep the final record of a job that nobody is told to come back for.

    By the thousand a second, as classifications and embeddings come, they would fill Redis.
    """
    is_awaited = not preference.is_async or preference.wait_s is not None
    return _BRIEFLY_S if is_awaited and job.task is not Task.IMAGES else None


async def _submit(new: NewJob, parts: Parts, keep_s: int | None) -> Queued | Joined | Answered:
    job, reuse = new.job, new.reuse
    try:
        submitted = await parts.jobs.submit(job, reuse, keep_s)
        if isinstance(submitted, Answered) and not await _is_there(submitted.record, parts):
            assert reuse is not None, "this is a bug: answered by the cache unasked"
            await parts.jobs.withdraw_answer(job.id, reuse)
            submitted = await parts.jobs.submit(job, replace(reuse, reads_cache=False), keep_s)
    except QueueFullError:
        parts.metrics.jobs.rejections.labels(job.task.value, "queue_full").inc()
        raise
    if isinstance(submitted, Queued):
        parts.metrics.jobs.enqueued.labels(job.task.value, job.model).inc()
    if reuse is not None:
        result = _REUSED.get(type(submitted), "miss")
        parts.metrics.jobs.reuse.labels(job.task.value, result).inc()
    return submitted


async def _is_there(record: Record, parts: Parts) -> bool:
    """Whether the files of a kept result can be fetched, and stay as long as if they were new."""
    result = record.result
    if not isinstance(result, ImageResult):
        return True
    names = [image.file_name for image in result.images]
    return await to_thread.run_sync(lambda: all(map(parts.image_files.touch, names)))


async def _accepted(job_id: str, parts: Parts, request: Request) -> Response:
    record = await parts.jobs.get(job_id)
    if record is None:
        raise lost_error(job_id)
    response = json_response(await job_object(record, parts, request), 202)
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
