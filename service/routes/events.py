"""`GET /v1/jobs/{id}/events`: what happens to a job, as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from service.dependencies import CurrentParts
from service.errors import RequestError, shown
from service.job_objects import found
from service.json_response import ERRORS
from service.schemas.events import EVENT_KINDS, from_event
from worker.contract.events import Event

router = APIRouter(tags=["jobs"])

_MEDIA_TYPE = "text/event-stream"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # nginx would hold events back
_KEEP_ALIVE = ": keep-alive\n\n"  # a comment: proxies close connections that are silent
_EVENT_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="the last event that came: go on from it")
]


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                _MEDIA_TYPE: {"schema": {"oneOf": [k.model_json_schema() for k in EVENT_KINDS]}}
            },
            "description": "one of these per event, as its `data`; its `event` is their `type`",
        },
        204: {"description": "the job is over, and `Last-Event-ID` was its last event"},
        **ERRORS,
    },
)
async def get_job_events(
    job_id: str, parts: CurrentParts, last_event_id: LastEventId = None
) -> Response:
    """Follow a job from its first event, or from where a connection was lost, to `finished`.

    A browser's EventSource goes on by itself, at any process of the service.
    """
    after = _checked(last_event_id) if last_event_id else None
    record = found(job_id, await parts.jobs.get(job_id))
    if not record.state.is_final:
        events = parts.events.follow(job_id, after)
        await anext(events)  # takes its place, or raises before the answer has begun
        return StreamingResponse(_frames(events), media_type=_MEDIA_TYPE, headers=_HEADERS)
    past = await parts.events.past(record, after)
    if not past:
        return Response(status_code=204)  # an EventSource comes back after anything else
    return Response("".join(map(_frame, past)), media_type=_MEDIA_TYPE, headers=_HEADERS)


def _checked(event_id: str) -> str:
    if _EVENT_ID.fullmatch(event_id) is None:
        allowed = "allowed: the id of an event, such as 1795707488306-0"
        raise RequestError("Last-Event-ID", f"Last-Event-ID: got {shown(event_id)}; {allowed}")
    return event_id


async def _frames(events: AsyncIterator[Event | None]) -> AsyncIterator[str]:
    async for event in events:
        yield _KEEP_ALIVE if event is None else _frame(event)


def _frame(event: Event) -> str:
    body = from_event(event)
    return f"id: {event.id}\nevent: {body.type}\ndata: {body.model_dump_json()}\n\n"
