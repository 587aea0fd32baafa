"""A job as clients see it: `GET /v1/jobs/{id}`, every 202, and a page of a list."""

from hashlib import sha256

from fastapi import Request, Response

from service.dependencies import Parts
from service.errors import (
    POLL_AFTER_S,
    JobEndedError,
    JobNotFoundError,
    ended_error,
    failure_error,
)
from service.file_responses import has_client_got
from service.image_items import url_items
from service.json_response import json_in_rows
from service.long_work import work_through
from service.row_responses import answer_bytes
from service.schemas.classify import ClassifyResponse
from service.schemas.embeddings import EmbeddingsResponse
from service.schemas.images import ImagesResponse
from service.schemas.jobs import JobObject, JobResult
from worker.contract.jobs import ClassifyResult, EmbeddingsResult, JobState
from worker.contract.record import AnyResult, Record


def found(job_id: str, record: Record | None) -> Record:
    if record is None:
        raise JobNotFoundError(job_id)
    return record


def end_error(record: Record) -> JobEndedError | None:
    """What to answer instead of a result to who wants it of a job that is over."""
    if record.failure is not None:
        return failure_error(record.id, record.failure)
    return None if record.result is not None else ended_error(record.id, record.state)


async def job_response(
    status: Record, parts: Parts, request: Request, status_code: int = 200
) -> Response:
    """Answer with a job; `status` is its record, whose result is read here where it has one."""
    return await _response(status, await job_object(status, parts), parts, request, status_code)


async def job_response_if_changed(status: Record, parts: Parts, request: Request) -> Response:
    """With a tag, by which who asks again is told that nothing has changed.

    The result, which can be megabytes, has no part in it: it never changes.
    """
    job = await job_object(status, parts)
    digest = sha256(f"{request.base_url} {job.model_dump_json()}".encode()).hexdigest()
    etag = f'W/"{digest[:32]}"'
    if has_client_got(etag, request.headers):
        response = Response(status_code=304)
        _note_retry(response, status)
    else:
        response = await _response(status, job, parts, request)
    response.headers["etag"] = etag
    return response


async def job_object(status: Record, parts: Parts) -> JobObject:
    """The job without its result."""
    position = await parts.jobs.queue_position(status)
    return JobObject.from_record(status, position, parts.settings.result_ttl_s)


async def _response(
    status: Record, job: JobObject, parts: Parts, request: Request, status_code: int = 200
) -> Response:
    num_bytes = 0
    if status.state is JobState.SUCCEEDED:
        record = found(status.id, await parts.jobs.get(status.id))
        assert record.result is not None, "this is a bug: a job that succeeded without a result"
        job = job.model_copy(
            update={"result": await job_result(record, record.result, parts, request)}
        )
        num_bytes = answer_bytes(record.result)
    response = await work_through(num_bytes, lambda: json_in_rows(job, status_code))
    _note_retry(response, status)
    return response


def _note_retry(response: Response, status: Record) -> None:
    if not status.state.is_final:
        response.headers["retry-after"] = POLL_AFTER_S


async def job_result(
    record: Record, result: AnyResult, parts: Parts, request: Request
) -> JobResult:
    """As the synchronous answer, with images by their URLs."""
    if isinstance(result, ClassifyResult):
        return await work_through(
            answer_bytes(result), lambda: ClassifyResponse.from_result(record, result)
        )
    if isinstance(result, EmbeddingsResult):
        return await work_through(
            answer_bytes(result), lambda: EmbeddingsResponse.from_result(record, result, "float")
        )
    return ImagesResponse.from_result(
        record, result, await url_items(record, result, parts, request)
    )
