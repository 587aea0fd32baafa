"""Server-sent events as all routes send them.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE = format_sse_event(comment="keep-alive")  # proxies close connections that are silent

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # nginx would hold events back


def frame(event: str, body: BaseModel, event_id: str | None = None) -> bytes:
    return format_sse_event(event=event, data_str=body.model_dump_json(), id=event_id)


class EventStream(StreamingResponse):
    """Closes its frames whatever happens, even if the client leaves before the first of them."""

    def __init__(self, frames: AsyncGenerator[bytes]) -> None:
        super().__init__(frames, media_type=MEDIA_TYPE, headers=HEADERS)
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._frames):
            await super().__call__(scope, receive, send)
