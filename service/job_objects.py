"""A job as clients see it: `GET /v1/jobs/{id}`, and every 202."""

from fastapi import Request, Response

from service.dependencies import Parts
from service.errors import NotFoundError, shown
from service.image_items import url_items
from service.json_response import json_response
from service.schemas.classify import ClassifyResponse
from service.schemas.embeddings import EmbeddingsResponse
from service.schemas.images import ImagesResponse
from service.schemas.jobs import JobObject, JobResult
from worker.contract.jobs import ClassifyResult, EmbeddingsResult
from worker.contract.record import AnyResult, Record

POLL_AFTER_S = "1"  # what `Retry-After` advises who polls an unfinished job


def found(job_id: str, record: Record | None) -> Record:
    if record is None:
        raise NotFoundError("job_not_found", f"job {shown(job_id)} does not exist or has expired")
    return record


async def job_response(record: Record, parts: Parts, request: Request) -> Response:
    response = json_response(await job_object(record, parts, request))
    if not record.state.is_final:
        response.headers["retry-after"] = POLL_AFTER_S
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
