"""Whether spans are sent, to whom, and what it costs where nobody takes them."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus

import pytest

from benchmarks.running_service import free_port
from benchmarks.trace import TraceReceiver
from worker.contract import otlp
from worker.contract.otlp import OtlpTracing
from worker.contract.spans import Span
from worker.contract.trace_context import TraceContext
from worker.contract.tracing import NO_TRACING, is_tracing, open_tracing

GIVEN = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "vendor=1")
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[TraceReceiver]:
    with TraceReceiver() as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def tracing(receiver: TraceReceiver) -> Iterator[OtlpTracing]:  # noqa: ARG001  # it is told of it
    made = OtlpTracing("triptych-api", "api-1")
    yield made
    made.close()


def begun(tracing: OtlpTracing) -> TraceContext:
    context = tracing.begin("POST", GIVEN)
    assert context is not None
    return context


def span(context: TraceContext, name: str = "x") -> Span:
    now = time.time_ns()
    return Span(name, context, GIVEN.span_id, now - 5_000_000, now, {"triptych.jobs": 2}, "server")


@pytest.mark.parametrize(
    ("environment", "is_on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_an_endpoint_turns_it_on(environment: dict[str, str], is_on: bool) -> None:
    assert is_tracing(environment) is is_on


def test_another_protocol_is_refused_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    environment = {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert open_tracing("triptych-api", "a", environment) is NO_TRACING
    assert "got=grpc allowed=http/protobuf" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"), ("OTEL_BSP_SCHEDULE_DELAY", "-1")],
)
def test_what_the_sdk_refuses_keeps_no_process_from_serving(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, value)
    assert open_tracing("triptych-api", "a", ENDPOINT) is NO_TRACING
    assert "event=tracing_off reason=" in caplog.text


def test_where_it_is_off_a_clients_trace_is_passed_on_as_it_came() -> None:
    assert NO_TRACING.begin("POST", GIVEN) == GIVEN
    assert NO_TRACING.begin("POST", None) is None


def test_a_span_arrives_as_it_was(tracing: OtlpTracing, receiver: TraceReceiver) -> None:
    context = begun(tracing)
    tracing.record(sent := span(context))

    [received] = receiver.trace(GIVEN.trace_id, 1)
    assert received.service == "triptych-api"
    assert (received.span_id, received.parent_id) == (context.span_id, GIVEN.span_id)
    assert (received.start_ns, received.end_ns) == (sent.start_ns, sent.end_ns)
    assert (received.kind, received.attributes) == ("server", {"triptych.jobs": 2})
    assert not received.is_error


def test_the_environments_names_win(
    receiver: TraceReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "painter")
    tracing = OtlpTracing("triptych-api", "api-1")
    tracing.record(span(begun(tracing)))
    tracing.close()
    assert receiver.trace(GIVEN.trace_id, 1)[0].service == "painter"


def test_who_asks_for_no_recording_has_none(tracing: OtlpTracing) -> None:
    unwanted = TraceContext(GIVEN.trace_id, GIVEN.span_id, False)
    assert tracing.begin("POST", unwanted) == unwanted


def test_of_many_new_traces_a_second_some_are_recorded(tracing: OtlpTracing) -> None:
    began = time.monotonic()
    found = sum(tracing.begin("POST", None) is not None for _ in range(5000))
    num_seconds = int(time.monotonic()) - int(began) + 1
    assert 10 <= found <= 10 * num_seconds


def test_the_standard_samplers_can_be_chosen(
    receiver: TraceReceiver,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    tracing = OtlpTracing("triptych-api", "api-1")
    assert all(tracing.begin("POST", None) for _ in range(1000))
    tracing.close()


def test_a_tracestate_that_is_not_in_order_is_no_line_of_the_log(
    tracing: OtlpTracing, receiver: TraceReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    for state in ("event=job_ended job=fake", ",".join(f"k{n}=v" for n in range(33)), "a=1,a=2"):
        context = tracing.begin("POST", replace(GIVEN, tracestate=state))
        assert context is not None
        tracing.record(span(context))
    receiver.trace(GIVEN.trace_id, 3)
    assert not caplog.records


def test_the_end_sends_what_is_left(
    receiver: TraceReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    tracing = OtlpTracing("triptych-api", "api-1")
    tracing.record(span(begun(tracing)))
    tracing.close()
    assert len(receiver.trace(GIVEN.trace_id, 1)) == 1


def test_an_outage_of_the_collector_is_two_lines_of_the_log(
    tracing: OtlpTracing,
    receiver: TraceReceiver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp, "FLUSH_S", 60.0)  # the last line is written before the end
    context = begun(tracing)
    receiver.status = HTTPStatus.BAD_REQUEST
    for _ in range(3):
        num_before = receiver.num_refused
        tracing.record(span(context))
        receiver.wait_for_refusal(num_before)
    receiver.status = HTTPStatus.OK
    tracing.record(span(context, "the last one"))
    receiver.trace(GIVEN.trace_id, 1)
    tracing.close()

    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "event=spans_lost reason=the collector does not take them",
        "event=spans_sent_again at_least_lost=3",
    ]


def test_a_collector_that_is_away_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")  # seconds
    caplog.set_level(logging.INFO)
    tracing = OtlpTracing("triptych-api", "api-1")
    context = begun(tracing)
    for _ in range(20_000):  # ten times what the queue holds
        tracing.record(span(context))
    tracing.close()
    assert len(caplog.records) <= 1


def test_a_collector_that_hangs_keeps_no_process_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # it accepts, and answers nothing
        port = hanging.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")  # seconds
        monkeypatch.setattr(otlp, "FLUSH_S", 0.05)
        tracing = OtlpTracing("triptych-api", "api-1")
        tracing.record(span(begun(tracing)))
        tracing.close()
        left = [each for each in threading.enumerate() if each.name == otlp.LAST_SPANS]
        assert left, "it waited until all was sent, or the SDK gave up"
        assert all(each.daemon for each in left), "the process waits for it"
        connection, _ = hanging.accept()
        with connection:  # and now it answers, or a later test would have our thread beside it
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            for each in left:
                each.join()
