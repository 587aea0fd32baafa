"""What surrounds every request: an id, a bounded body, a log line, metrics, an answer to a bug.

Plain ASGI, so that nothing is copied or buffered. Knows nothing about routes or jobs.
"""

import logging
import re
import secrets
from collections.abc import Callable
from time import perf_counter

from prometheus_client import Gauge
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.bursts import BurstLimiter
from service.error_handlers import internal_error, response_to
from service.metrics import Metrics
from service.request_tracing import RequestTrace
from worker.contract.tracing import NO_TRACING, Tracing

logger = logging.getLogger(__name__)

_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})  # machines ask them all the time
_EVENT_STREAM = b"text/event-stream"
_RETRIES = "x-stainless-retry-count"  # of OpenAI's clients: how often this was sent before …
_PATIENCE = "x-stainless-read-timeout"  # … and for how many seconds they wait for the answer
_NUMBER = re.compile(r"[0-9.]{1,16}", re.ASCII)
_CLIENT_LEFT = 499  # before an answer; nginx's number
_REQUEST_ID = re.compile(
    r"[!#-~]{1,128}"
)  # visible ASCII: safe in a header; no quote: and in a log


class RequestMiddleware:
    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        tracing: Tracing,
        bursts: BurstLimiter,
        max_body_bytes: int,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._bursts = bursts
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        response = _ResponseWatch(send, _request_id(headers), lambda: self._streams(scope).inc())
        trace = RequestTrace(
            NO_TRACING if scope["path"] in _PROBES else self._tracing, scope, headers
        )
        state = scope.setdefault("state", {})
        state["request_id"], state["trace"] = response.request_id, trace.context
        with self._metrics.requests.in_flight.track_inprogress():
            body = _BoundedBody(headers, receive, self._max_body_bytes)
            try:
                if scope["path"] not in _PROBES:
                    await self._bursts.admit()
                await self._app(scope, body.receive, response.send)
            except ClientDisconnect:
                pass  # nobody is there to be answered
            except Exception:
                logger.exception(
                    "event=unhandled request_id=%s trace_id=%s", response.request_id, trace.log_id
                )
                if not response.is_started:
                    await response_to(internal_error())(scope, receive, response.send)
            finally:
                if response.is_stream:
                    self._streams(scope).dec()
        if _RETRIES in headers and headers[_RETRIES] != "0":
            self._metrics.requests.note_retry(_route(scope))
        if body.is_cut_off:
            response.status = _CLIENT_LEFT  # whatever the app said to nobody
        self._account(scope, headers, response, trace)

    def _account(
        self, scope: Scope, headers: Headers, response: "_ResponseWatch", trace: RequestTrace
    ) -> None:
        route = _route(scope)
        method, status, seconds = scope["method"], response.status, response.elapsed_s()
        # a stream lasts as long as its job: that says nothing of how fast the service answers
        answered_s = None if response.is_stream else seconds
        self._metrics.requests.observe(
            route, method, status, answered_s, response.num_bytes, trace.context
        )
        trace.end(route, None if status == _CLIENT_LEFT else status, seconds)
        logger.log(
            logging.DEBUG if route in _PROBES else _log_level(status),
            "event=request method=%s route=%s status=%s ms=%.1f bytes=%s request_id=%s job=%s "
            "trace_id=%s retries=%s client_timeout_s=%s",
            *(
                method,
                route or "other",
                status,
                1e3 * seconds,
                response.num_bytes,
                response.request_id,
            ),
            *(scope["state"].get("job_id", "-"), trace.log_id),
            *(_number(headers, _RETRIES), _number(headers, _PATIENCE)),
        )

    def _streams(self, scope: Scope) -> Gauge:
        return self._metrics.requests.event_streams.labels(_route(scope) or "other")


def _route(scope: Scope) -> str | None:
    """The template of the route that answers; None where there is none."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path


def _log_level(status: int) -> int:
    """A good answer is worth no line: its job has one, in the worker's log."""
    if status < 400:
        return logging.DEBUG
    return logging.INFO if status < 500 else logging.WARNING


class _ResponseWatch:
    """Adds the common headers to the response and remembers what was sent."""

    def __init__(self, send: Send, request_id: str, on_stream: Callable[[], None]) -> None:
        self._send = send
        self._on_stream = on_stream
        self._start = perf_counter()
        self.request_id = request_id
        self.status = _CLIENT_LEFT
        self.num_bytes = 0
        self.is_started = False
        self.is_stream = False  # of events

    def elapsed_s(self) -> float:
        return perf_counter() - self._start

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_started = True
            self.status = message["status"]
            self.is_stream = any(
                name == b"content-type" and value.startswith(_EVENT_STREAM)
                for name, value in message.get("headers", ())
            )
            if self.is_stream:
                self._on_stream()
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"openai-processing-ms", b"%d" % round(1e3 * self.elapsed_s())),
            ]
        self.num_bytes += len(message.get("body", b""))
        await self._send(message)


class _BoundedBody:
    """Counts the body as it streams in; `Content-Length` only makes the refusal earlier."""

    def __init__(self, headers: Headers, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._is_complete = False
        self.is_cut_off = False  # the client left within its body
        declared = headers.get("content-length", "0")
        self._is_declared_too_large = declared.isdecimal() and int(declared) > max_bytes

    async def receive(self) -> Message:
        if self._is_declared_too_large:
            raise self._too_large()
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_cut_off = not self._is_complete
        else:
            self._is_complete = not message.get("more_body", False)
        self._num_bytes += len(message.get("body", b""))
        if self._num_bytes > self._max_bytes:
            raise self._too_large()
        return message

    def _too_large(self) -> HTTPException:
        # an HTTPException, because FastAPI turns all others raised while reading into a 400
        return HTTPException(413, f"the request body is larger than {self._max_bytes} bytes")


def _number(headers: Headers, name: str) -> str:
    """What a header says, if it is safe in a log."""
    given = headers.get(name, "")
    return given if _NUMBER.fullmatch(given) else "-"


def _request_id(headers: Headers) -> str:
    """The client's, by our name for it or OpenAI's; else a new one."""
    given = headers.get("x-request-id") or headers.get("x-client-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
