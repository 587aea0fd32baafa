"""HTTP/1.1 as uvicorn speaks it, with bounds for how long a client keeps us waiting, and for what.

A request is to come, and an answer to be taken, at a pace that any connection has; a head has a
size that any client stays below, and so have the trailers of a body, which are of no use here. Who
is refused here gets OpenAI's envelope, as from a route, and the connection ends.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import NoReturn

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.error_handlers import response_to
from service.errors import RequestError, ServiceError, shown

_PATIENCE_S = 30.0  # for a request to come or an answer to be taken, and …
_BYTES_PER_S = 10_000  # … a second more for each of these bytes
_MAX_HEAD_BYTES = 64 * 1024  # request line and headers; proxies allow 8 to 32 KiB
_MAX_WAITING = 32  # requests behind the one that is being answered; few clients send even two
_HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)  # RFC 3986, uri-host and port


class HttpProtocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # as asyncio has it
        self._is_in_body = False
        self._num_bytes = 0  # of the request that is coming
        self._num_bytes_beside = 0  # of these, before the body or since the last of it
        self._refusal: ServiceError | None = None  # why the parser was stopped
        self._late_answer: asyncio.TimerHandle | None = None
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._late_request.cancel()
        self._forget_answer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._num_bytes += len(data)
        self._num_bytes_beside += len(data)
        super().data_received(data)
        if self._num_bytes_beside > _MAX_HEAD_BYTES:
            self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MAX_WAITING:
            raise ConnectionAbortedError  # which `_refuse` does: other answers are on their way
        super().on_message_begin()
        self._num_bytes = max(1, self._num_bytes)  # if it came in one piece with the one before
        if self._late_request.cancelled():  # it is not the connection's first
            self._await_request()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_body:  # else a trailer, which uvicorn would keep, and nothing bound
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        num_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if num_bytes > _MAX_HEAD_BYTES:  # all of it came in one piece
            self._stop_parsing(_head_too_large())
        if (error := _host_error(self.headers, self.parser.get_http_version())) is not None:
            self._stop_parsing(error)
        super().on_headers_complete()  # raises for a target that is no path, as of a CONNECT
        self._is_in_body = True
        self._num_bytes_beside = 0

    def on_body(self, body: bytes) -> None:
        self._num_bytes_beside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._num_bytes = self._num_bytes_beside = 0
        self._late_request.cancel()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or what uvicorn does not take for it, or we do not."""
        self._refuse(self._refusal or RequestError(None, msg, "invalid_http"))

    def pause_writing(self) -> None:
        super().pause_writing()
        patience_s = _PATIENCE_S + self.transport.get_write_buffer_size() / _BYTES_PER_S
        self._late_answer = self.loop.call_later(patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_answer()

    def _forget_answer(self) -> None:
        if self._late_answer is not None:
            self._late_answer.cancel()

    def _await_request(self) -> None:
        self._began_at = self.loop.time()
        self._late_request = self.loop.call_later(_PATIENCE_S, self._check_request)

    def _check_request(self) -> None:
        """End the connection, unless its request still has time by what has come of it."""
        if self.flow.read_paused:  # it is not the client that is slow
            left_s = _PATIENCE_S
        elif self._is_in_body and self.cycle.response_complete:  # the rest is of no use
            left_s = 0.0
        else:
            given_s = _PATIENCE_S + self._num_bytes / _BYTES_PER_S
            left_s = self._began_at + given_s - self.loop.time()
        if left_s > 0:
            self._late_request = self.loop.call_later(left_s, self._check_request)
        elif self._num_bytes == 0:  # nothing to answer
            self.transport.close()
        else:
            self._refuse(_request_timeout(self._num_bytes))

    def _stop_parsing(self, error: ServiceError) -> NoReturn:
        """Raise within a callback of the parser, after which uvicorn has it refused as a 400."""
        self._refusal = error
        raise error

    def _refuse(self, error: ServiceError) -> None:
        """Answer, unless another answer is on its way or this request has its own; then close."""
        cycle = self.cycle
        is_answering = cycle is not None and not cycle.response_complete
        if is_answering and (cycle.response_started or not self._is_in_body):
            self.transport.abort()
        elif not self.transport.is_closing():
            if is_answering or not self._is_in_body:
                self.transport.write(_response(error))
            self.transport.close()


def _response(error: ServiceError) -> bytes:
    response = response_to(error)
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = [STATUS_LINE[response.status_code], *(b"%b: %b\r\n" % each for each in headers)]
    return b"".join([*lines, b"\r\n", response.body])


def _host_error(headers: Sequence[tuple[bytes, bytes]], version: str) -> ServiceError | None:
    """What RFC 9112 §3.2 is to be answered with 400."""
    hosts = [value for name, value in headers if name == b"host"]
    if not hosts and version != "1.1":
        return None
    if len(hosts) == 1 and _HOST.fullmatch(hosts[0]):
        return None
    got = shown(hosts[0].decode("latin-1")) if len(hosts) == 1 else f"{len(hosts)} of them"
    return RequestError("Host", f"Host: got {got}; allowed: one, of a name and a port")


def _head_too_large() -> ServiceError:
    return ServiceError(
        431,
        "invalid_request_error",
        "headers_too_large",
        f"request line and headers: got more than {_MAX_HEAD_BYTES} bytes",
    )


def _request_timeout(num_bytes: int) -> ServiceError:
    return ServiceError(
        408,
        "invalid_request_error",
        "request_timeout",
        f"the request is not complete: got {num_bytes} bytes; allowed: {_PATIENCE_S:.0f} s, and "
        f"one more for each {_BYTES_PER_S} bytes",
    )
