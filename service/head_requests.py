"""HEAD: every GET route answers it, as probes and download managers ask.

It goes to the route as a GET without `Range`, which means nothing to HEAD (RFC 9110 §14.2); the
server sends no body to a HEAD, so that `Content-Length` and `ETag` are those of the GET.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Goes around all others, which see a GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})  # at once: a stream may last for hours

        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await self._app({**scope, "method": "GET", "headers": headers}, receive, send_head)
