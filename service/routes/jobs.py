"""`/v1/jobs`: the jobs behind all requests, and those that are asked for here."""

import asyncio
from dataclasses import replace
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from service.api_description import conditions, header_refs, job_links, one_of
from service.dependencies import CurrentParts, CurrentPreference, Parts, caller_of
from service.errors import NotFinishedError, RequestError
from service.job_inputs import new_job
from service.job_list import Wanted
from service.job_objects import (
    end_error,
    found,
    job_object,
    job_response,
    job_response_if_changed,
    job_result,
)
from service.json_response import json_in_rows, json_response
from service.long_work import work_through
from service.request_bodies import JSON, read_json
from service.responses import ANSWER_HEADERS, accepted, note_preference
from service.route_errors import (
    BODY,
    IMAGE,
    JOB,
    JOB_END,
    JOB_LIST,
    KEY,
    MODEL,
    PARAMETERS,
    STORE,
    SUBMIT,
    UNFINISHED,
    errors,
)
from service.row_responses import answer_bytes
from service.schemas.jobs import (
    JOB_REQUESTS,
    TASKS,
    JobListObject,
    JobListQuery,
    JobObject,
    JobRequest,
    JobResult,
)
from service.submitting import submit
from worker.contract.jobs import ImageResult

router = APIRouter(tags=["jobs"])

_JOB = {"model": JobObject, "headers": header_refs("etag", "retry-after")}


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=None,
    responses={
        202: {
            "model": JobObject,
            "description": "the job, which waits",
            "headers": header_refs(*ANSWER_HEADERS, "location", "retry-after"),
            "links": job_links("$response.body#/id"),
        },
        **errors(BODY, IMAGE, PARAMETERS, KEY, STORE, MODEL, SUBMIT),
    },
    openapi_extra={
        "requestBody": {"required": True, "content": {JSON: {"schema": one_of(*JOB_REQUESTS)}}}
    },
)
async def create_job(
    request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Ask for what the task's own route would do, without waiting for it.

    A fault within the input is named as `input.size`.
    """
    new = await new_job(await read_json(request, JobRequest), request, parts)
    asynchronous = replace(preference, is_async=True, wait_s=None)
    submitted = await submit(new, parts, asynchronous, request)
    response = await accepted(submitted.job_id, parts, request)
    response.headers.update(submitted.headers)
    note_preference(response, replace(preference, wait_s=None))
    return response


@router.get(
    "/v1/jobs",
    response_model=None,
    responses={200: {"model": JobListObject}, **errors(JOB_LIST, STORE)},
)
async def list_jobs(
    query: Annotated[JobListQuery, Query()], request: Request, parts: CurrentParts
) -> Response:
    """List the caller's jobs, newest first, without their results.

    It has those whose results are kept to come back for, the last 10,000; not the classifications
    and embeddings that were waited for.
    """
    for name in JobListQuery.model_fields:
        if name != "status" and (num := len(request.query_params.getlist(name))) > 1:
            raise RequestError(name, f"{name}: given {num} times; allowed: once")
    wanted = Wanted(
        caller=caller_of(request),
        limit=query.limit,
        after=query.after,
        task=None if query.type is None else TASKS[query.type],
        model=query.model,
        statuses=query.status,
    )
    page = await parts.job_list.page(wanted)
    jobs = await asyncio.gather(*(job_object(record, parts) for record in page.records))
    return json_response(
        JobListObject(
            data=list(jobs), first_id=page.first_id, last_id=page.last_id, has_more=page.has_more
        )
    )


@router.get(
    "/v1/jobs/{job_id}",
    response_model=None,
    responses={
        200: _JOB,
        304: {"description": "`If-None-Match` has its tag: nothing has changed"},
        **errors(JOB, STORE),
    },
    openapi_extra={"parameters": conditions(If_None_Match="the tag of what the client has")},
)
async def get_job(job_id: str, request: Request, parts: CurrentParts) -> Response:
    """Read a job. `Retry-After` says when to ask again while it is not finished."""
    status = found(job_id, await parts.jobs.status(job_id))
    return await job_response_if_changed(status, parts, request)


@router.get(
    "/v1/jobs/{job_id}/result",
    response_model=None,
    responses={200: {"model": JobResult}, **errors(JOB, UNFINISHED, JOB_END, STORE)},
)
async def get_job_result(job_id: str, request: Request, parts: CurrentParts) -> Response:
    """Read what a job came to, as the synchronous answer: its result, or its error.

    Images are there by their URLs, and embeddings as floats.
    """
    record = found(job_id, await parts.jobs.get(job_id))
    if not record.state.is_final:
        raise NotFinishedError(job_id, "ask again later")
    if (error := end_error(record)) is not None:
        raise error
    assert record.result is not None, "this is a bug: neither a result nor an error"
    result = await job_result(record, record.result, parts, request)
    return await work_through(answer_bytes(record.result), lambda: json_in_rows(result))


@router.post(
    "/v1/jobs/{job_id}/cancel",
    response_model=None,
    responses={200: {"model": JobObject}, **errors(JOB, STORE)},
)
async def cancel_job(job_id: str, request: Request, parts: CurrentParts) -> Response:
    """Cancel a job: at once while it waits, within a step while it runs; a final one stays."""
    await parts.jobs.cancel(job_id)
    return await job_response(found(job_id, await parts.jobs.status(job_id)), parts, request)


@router.delete(
    "/v1/jobs/{job_id}",
    status_code=204,
    response_model=None,
    responses={
        204: {"description": "it is forgotten"},
        **errors(JOB, UNFINISHED, STORE),
    },
)
async def delete_job(job_id: str, parts: CurrentParts) -> Response:
    """Forget a job that is over, with its result.

    Its images are removed, but for those that an equal job may have been answered with: these go
    when their time is over. Its `Idempotency-Key` is free again.
    """
    result = await parts.jobs.forget(job_id)
    if isinstance(result, ImageResult):
        await to_thread.run_sync(_remove_images, result, parts)
    return Response(status_code=204)


def _remove_images(result: ImageResult, parts: Parts) -> None:
    for image in result.images:
        parts.image_files.remove(image.file_name)
