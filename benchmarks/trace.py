"""What does a request's trace look like? `python -m benchmarks.trace`.

Starts a service with every span sent to a receiver of our own, asks it for an image, a
classification and an embedding, and prints each trace as a tree. With `--listen PORT` it starts no
service and prints what others send it: set `OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:PORT`.
"""

import argparse
import base64
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from PIL import Image

from benchmarks.running_service import running

_WAIT_S = 60.0
_POLL_S = 0.01  # how soon it sees that it is to end
_REQUESTS: Mapping[str, Mapping[str, object]] = {
    "/v1/images/generations": {"prompt": "a red circle", "seed": 1, "num_inference_steps": 4},
    "/v1/embeddings": {"input": ["a red circle", "a blue star"]},
}
_NOT_SHOWN = frozenset({"url.scheme", "triptych.request.id"})

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as the wire has it. Times are Unix nanoseconds, ids hexadecimal."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    is_error: bool

    @property
    def ms(self) -> float:
        return (self.end_ns - self.start_ns) / 1e6


class TraceReceiver:
    """An OTLP receiver over HTTP on this machine; `status` is what it answers from now on."""

    def __init__(self, port: int = 0, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.status = status
        self.num_refused = 0
        self._spans: list[ReceivedSpan] = []
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = receiver._take(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), daemon=True
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to know to send its spans here, and soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",  # milliseconds
        }

    def trace(self, trace_id: str, num_spans: int) -> list[ReceivedSpan]:
        """A trace once it has so many spans; raises TimeoutError where they do not come."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._of(trace_id)) >= num_spans, _WAIT_S):
                got = ", ".join(span.name for span in self._of(trace_id))
                raise TimeoutError(f"{trace_id}: {num_spans} spans wanted, got {got or 'none'}")
            return self._of(trace_id)

    def wait_for_more(self, num_known: int) -> list[ReceivedSpan]:
        """All spans as soon as there are more than these."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._spans) > num_known)
            return [*self._spans]

    def wait_for_refusal(self, num_known: int) -> None:
        """Until more batches were refused than these."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.num_refused > num_known, _WAIT_S)

    def _of(self, trace_id: str) -> list[ReceivedSpan]:
        return [span for span in self._spans if span.trace_id == trace_id]

    def _take(self, body: bytes) -> HTTPStatus:
        """Keep the spans or refuse them; what is to be answered."""
        with self._changed:
            status = self.status
            if status is HTTPStatus.OK:
                self._spans += _spans(ExportTraceServiceRequest.FromString(body))
            else:
                self.num_refused += 1
            self._changed.notify_all()
            return status

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def tree(spans: Sequence[ReceivedSpan]) -> str:
    """A trace as text: when each span begins and how long it takes, in ms, and what it says."""
    known = {span.span_id for span in spans}
    first_ns = min(span.start_ns for span in spans)

    def lines(parent_id: str | None, depth: int) -> Iterator[str]:
        for span in sorted(spans, key=lambda span: span.start_ns):
            its_parent = span.parent_id if span.parent_id in known else None
            if its_parent != parent_id:
                continue
            name = f"{'  ' * depth}{span.name}{' !' if span.is_error else ''}"
            said = " ".join(
                f"{key.removeprefix('triptych.')}={value}"
                for key, value in sorted(span.attributes.items())
                if key not in _NOT_SHOWN
            )
            begin_ms = (span.start_ns - first_ns) / 1e6
            yield f"{begin_ms:8.1f} {span.ms:8.1f}  {name:34} {said}".rstrip()
            yield from lines(span.span_id, depth + 1)

    return "\n".join([f"trace {spans[0].trace_id}", f"{'begins':>8} {'takes':>8}", *lines(None, 0)])


def _spans(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for group in request.resource_spans:
        resource = {each.key: _value(each.value) for each in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    service=str(resource["service.name"]),
                    name=span.name,
                    kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex() or None,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes={each.key: _value(each.value) for each in span.attributes},
                    is_error=span.status.code == Status.STATUS_CODE_ERROR,
                )


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    assert kind is not None, "this is a bug: an attribute without a value"
    said: Value = getattr(value, kind)
    return said


def _red_square() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 128), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def show() -> None:
    """Ask for one of each, and print what came of it."""
    requests = {**_REQUESTS, "/v1/classify": {"input": _red_square()}}
    with TraceReceiver() as receiver:
        with running("triptych", "serve", log=None, **receiver.environment) as service:
            for number, (path, body) in enumerate(requests.items(), start=1):
                trace_id = f"{number:032x}"
                headers = {"traceparent": f"00-{trace_id}-{number:016x}-01"}
                answer = httpx.post(f"{service.url}{path}", json=body, headers=headers, timeout=60)
                answer.raise_for_status()
        for number in range(1, len(requests) + 1):  # all is sent by now: the service has ended
            print(tree(receiver.trace(f"{number:032x}", 1)), end="\n\n")  # noqa: T201


def listen(port: int) -> None:
    """Print each trace again whenever more of it has come."""
    with TraceReceiver(port) as receiver:
        num_known = 0
        while True:
            spans = receiver.wait_for_more(num_known)
            for trace_id in dict.fromkeys(span.trace_id for span in spans[num_known:]):
                print(tree([span for span in spans if span.trace_id == trace_id]))  # noqa: T201
            num_known = len(spans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", type=int, metavar="PORT", help="start no service")
    port = parser.parse_args().listen
    if port is None:
        show()
    else:
        listen(port)


if __name__ == "__main__":
    main()
