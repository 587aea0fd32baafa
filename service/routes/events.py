"""`GET /v1/jobs/{id}/events`: what happens to a job, as server-sent events."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from pydantic import WithJsonSchema

from service import sse
from service.api_description import event_stream
from service.dependencies import CurrentParts
from service.errors import RequestError, shown
from service.job_objects import found
from service.route_errors import EVENT_ID, FOLLOWERS, JOB, STORE, errors
from service.schemas.events import EVENT_KINDS, from_event
from worker.contract.events import Event

router = APIRouter(tags=["jobs"])

_EVENT_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
# empty is none, as an EventSource has it before its first event
_DESCRIBED = WithJsonSchema({"type": "string", "pattern": f"^({_EVENT_ID.pattern})?$"})

LastEventId = Annotated[
    Annotated[str, _DESCRIBED] | None,
    Header(alias="Last-Event-ID", description="the last event that came: go on from it"),
]


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": event_stream(EVENT_KINDS),
            "description": "what has happened, and what happens until the job is over",
        },
        204: {"description": "the job is over, and `Last-Event-ID` was its last event"},
        **errors(EVENT_ID, JOB, FOLLOWERS, STORE),
    },
)
async def get_job_events(
    job_id: str, parts: CurrentParts, last_event_id: LastEventId = None
) -> Response:
    """Follow a job from its first event, or from where a connection was lost, to `finished`.

    A browser's EventSource goes on by itself, at any process of the service.
    """
    after = _checked(last_event_id) if last_event_id else None
    record = found(job_id, await parts.jobs.status(job_id))
    if not record.state.is_final:
        frames = _frames(parts.events.follow(job_id, after))
        await anext(frames)  # takes its place, or raises before the answer has begun
        return sse.EventStream(frames)
    past = await parts.events.past(record, after)
    if not past:
        return Response(status_code=204)  # an EventSource comes back after anything else
    return Response(b"".join(map(_frame, past)), media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)


def _checked(event_id: str) -> str:
    if _EVENT_ID.fullmatch(event_id) is None:
        allowed = "allowed: the id of an event, such as 1795707488306-0"
        raise RequestError("Last-Event-ID", f"Last-Event-ID: got {shown(event_id)}; {allowed}")
    return event_id


async def _frames(events: AsyncGenerator[Event | None]) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        async for event in events:
            yield sse.KEEP_ALIVE if event is None else _frame(event)


def _frame(event: Event) -> bytes:
    body = from_event(event)
    return sse.frame(body.type, body, event.id)
