"""How a job becomes a response: 200 with its result, 202 with the job, or an error.

The one place where the three tasks share a road; what a result looks like is in `schemas`.
"""

from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from service.dependencies import Parts, Preference, caller_of
from service.errors import (
    EndDelayedError,
    SyncWaitError,
    ended_error,
    failure_error,
    lost_error,
)
from service.job_client import ClientLeftError, Wait
from service.job_objects import POLL_AFTER_S, job_object
from service.json_response import ERRORS, json_response
from service.schemas.fields import ResponseBody
from service.schemas.jobs import JobObject
from service.submitting import REUSED, NewJob, submit
from worker.contract.jobs import Task
from worker.contract.record import AnyJob, Record
from worker.contract.submission import Answered

_BRIEFLY_S = 60

Respond = Callable[[Record], Awaitable[Response]]

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


async def run(
    new: NewJob, parts: Parts, preference: Preference, request: Request, respond: Respond
) -> Response:
    """Submit the job and answer as the caller prefers: wait for its result, or not."""
    job = new.job.model_copy(update={"caller": caller_of(request)})
    request.state.job_id = job.id  # for the request's line in the log
    with parts.jobs.listening(job.id) as wait:
        submitted = await submit(NewJob(job, new.reuse), parts, _keep_s(job, preference))
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
        response = await respond(record)
    response.headers["x-job-id"] = job.id
    if (reused := REUSED.get(type(submitted))) is not None:
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


async def _accepted(job_id: str, parts: Parts, request: Request) -> Response:
    record = await parts.jobs.get(job_id)
    if record is None:
        raise lost_error(job_id)
    response = json_response(await job_object(record, parts, request), 202)
    response.headers["location"] = f"/v1/jobs/{job_id}"
    response.headers["retry-after"] = POLL_AFTER_S
    return response


def _check_succeeded(record: Record) -> None:
    if record.failure is not None:
        raise failure_error(record.id, record.failure)
    if record.result is None:
        raise ended_error(record.id, record.state)


def _note_preference(response: Response, preference: Preference) -> None:
    applied = preference.applied()
    if applied is not None:
        response.headers["preference-applied"] = applied
