"""How a job becomes a response: 200 with its result, 202 with the job, or an error.

The one place where the three tasks share a road; what a result looks like is in `schemas`.
"""

from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from service.api_description import header_refs, job_links
from service.dependencies import Parts, Preference
from service.errors import EndDelayedError, SyncWaitError, lost_error
from service.job_client import ClientLeftError, Wait
from service.job_objects import end_error, job_response
from service.route_errors import JOB_RUN, KEY, MODEL, PARAMETERS, STORE, Errors, errors
from service.schemas.jobs import JobObject
from service.submitting import NewJob, Submitted, submit
from worker.contract.record import Record

Respond = Callable[[Record], Awaitable[Response]]

ANSWER_HEADERS = ("x-job-id", "x-cache", "idempotency-replayed", "preference-applied")


def answers_with(model: type[BaseModel], *groups: Errors) -> dict[int | str, dict[str, object]]:
    """What a route that submits jobs answers, for its description; `groups` as of its body."""
    return {
        200: {
            "model": model,
            "description": "the result of the job",
            "headers": header_refs(*ANSWER_HEADERS),
            "links": job_links("$response.header.x-job-id"),
        },
        202: {
            "model": JobObject,
            "description": "the job, which goes on: `Prefer` asked not to wait for it",
            "headers": header_refs(*ANSWER_HEADERS, "location", "retry-after"),
            "links": job_links("$response.body#/id"),
        },
        **errors(PARAMETERS, KEY, STORE, MODEL, JOB_RUN, *groups),
    }


async def run(
    new: NewJob, parts: Parts, preference: Preference, request: Request, respond: Respond
) -> Response:
    """Submit the job and answer as the caller prefers: wait for its result, or not."""
    with parts.jobs.listening(new.job.id) as wait:
        submitted = await submit(new, parts, preference, request)
        if submitted.is_attached:
            with parts.jobs.listening(submitted.job_id, may_be_over=True) as wait_for_earlier:
                record = await _end_of(submitted, wait_for_earlier, parts, preference, request)
        else:
            record = await _end_of(submitted, wait, parts, preference, request)
    if record is None:
        response = await accepted(submitted.job_id, parts, request)
    else:
        _check_succeeded(record, submitted, preference)
        response = await respond(record)
    response.headers.update(submitted.headers)
    note_preference(response, preference)
    return response


async def _end_of(
    submitted: Submitted, wait: Wait, parts: Parts, preference: Preference, request: Request
) -> Record | None:
    """Wait for the final record; None where the client is to come back for it.

    Where it leaves, the job is not to be run for nobody.
    """
    if preference.is_async and preference.wait_s is None:
        return None
    if submitted.record is not None:
        return submitted.record
    task, job_id = submitted.task, submitted.job_id
    longest_s = parts.settings.sync_wait_s
    wait_s = longest_s if preference.wait_s is None else min(longest_s, preference.wait_s)
    try:
        return await wait(wait_s, None if preference.is_async else lambda: _leaving(request))
    except ClientLeftError:
        parts.metrics.jobs.client_disconnects.labels(task.value).inc()
        parts.job_changes.leave(job_id, submitted.waiter)
        raise ClientDisconnect from None
    except EndDelayedError:
        parts.job_changes.keep(job_id)
        raise
    except SyncWaitError:
        parts.job_changes.keep(job_id)
        if preference.is_async:
            return None
        parts.metrics.jobs.wait_timeouts.labels(task.value).inc()
        raise


async def _leaving(request: Request) -> None:
    """Wait until the client closes its connection, whose request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def accepted(job_id: str, parts: Parts, request: Request) -> Response:
    """202, with the job as it stands."""
    status = await parts.jobs.status(job_id)
    if status is None:
        raise lost_error(job_id)
    response = await job_response(status, parts, request, 202)
    response.headers["location"] = f"/v1/jobs/{job_id}"
    return response


def _check_succeeded(record: Record, submitted: Submitted, preference: Preference) -> None:
    error = end_error(record)
    if error is None:
        return
    error.headers.update(submitted.headers)
    if preference.key is not None:
        error.headers["x-should-retry"] = "false"  # its key stands for this end
    raise error


def note_preference(response: Response, preference: Preference) -> None:
    applied = preference.applied()
    if applied is not None:
        response.headers["preference-applied"] = applied
