"""The span of a request: begun where its trace comes in, recorded when it is answered.

Its names are OpenTelemetry's (https://opentelemetry.io/docs/specs/semconv/http/http-spans/), those
of ours begin with `triptych.`.
Neither a query nor a body is in it, nor the address of a client.
"""

import time
from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import Scope

from service.metrics import METHODS
from worker.contract.spans import Span
from worker.contract.trace_context import TraceContext, parse_trace_context
from worker.contract.tracing import Tracing

# What is noted of a request and its job, and what it is called in the span.
_OF_STATE = {
    "request_id": "triptych.request.id",
    "job_id": "triptych.job.id",
    "reuse": "triptych.reuse",
}

_MAX_PATH = 256  # characters; a client's may have 64 KiB, and 2,048 spans wait for a collector


class RequestTrace:
    """One request's place in a trace, its own or the one that came with it."""

    def __init__(self, tracing: Tracing, scope: Scope, headers: Headers) -> None:
        self._tracing = tracing
        self._scope = scope
        self._given = _given(headers)
        self._start_ns = time.time_ns()
        self.context = tracing.begin(_method(scope), self._given)

    @property
    def log_id(self) -> str:
        return "-" if self.context is None else self.context.trace_id

    def end(self, route: str | None, status: int | None, seconds: float) -> None:
        """Record it; `status` is None where the client left before an answer."""
        if not self._tracing.is_on or self.context is None or not self.context.is_sampled:
            return
        error = _error(status)
        self._tracing.record(
            Span(
                _method(self._scope) if route is None else f"{_method(self._scope)} {route}",
                self.context,
                None if self._given is None else self._given.span_id,
                self._start_ns,
                self._start_ns + int(1e9 * seconds),
                self._attributes(route, status, error),
                "server",
                error,
            )
        )

    def _attributes(
        self, route: str | None, status: int | None, error: str | None
    ) -> Mapping[str, str | int]:
        said: dict[str, str | int] = {
            "http.request.method": _method(self._scope),
            "url.path": self._scope["path"][:_MAX_PATH],
            "url.scheme": self._scope["scheme"],
        }
        if route is not None:
            said["http.route"] = route
        if status is not None:
            said["http.response.status_code"] = status
        if error is not None:
            said["error.type"] = error
        state = self._scope["state"]
        return said | {name: state[key] for key, name in _OF_STATE.items() if key in state}


def _given(headers: Headers) -> TraceContext | None:
    lines = headers.getlist("traceparent")
    if len(lines) != 1:  # of several nobody knows which is meant
        return None
    return parse_trace_context(lines[0], ",".join(headers.getlist("tracestate")) or None)


def _method(scope: Scope) -> str:
    """A method that nobody knows would be a name for each."""
    method: str = scope["method"]
    return method if method in METHODS else "_OTHER"


def _error(status: int | None) -> str | None:
    """A client's mistake is no error of the server's span."""
    if status is None:
        return "client_left"
    return str(status) if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None
