"""The span of a request, sent over the wire, and what its job knows of it."""

from collections.abc import Iterator

import httpx
import pytest

from benchmarks.trace import ReceivedSpan, TraceReceiver
from service.main import create_app
from service.settings import ServiceSettings
from tests.service.conftest import TestWorker, serve
from worker.contract.jobs import Failure, FailureCode
from worker.contract.otlp import OtlpTracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
EMBEDDINGS = "/v1/embeddings"
SECRET = "what nobody else may read"


@pytest.fixture(scope="module")
def receiver() -> Iterator[TraceReceiver]:
    with TraceReceiver() as made:
        yield made


@pytest.fixture(scope="module")
def traced_url(receiver: TraceReceiver, settings: ServiceSettings) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in receiver.environment.items():
            patch.setenv(name, value)
        tracing = OtlpTracing("triptych-api", "api-1")
    with serve(create_app(settings, tracing)) as url:
        yield url
    tracing.close()


@pytest.fixture
def client(traced_url: str, worker: TestWorker) -> Iterator[httpx.Client]:  # noqa: ARG001
    with httpx.Client(base_url=traced_url, timeout=20) as made:
        yield made


def headers(number: int) -> dict[str, str]:
    """Each test has a trace of its own."""
    return {"traceparent": f"00-{number:032x}-{SPAN}-01"}


def only_span(receiver: TraceReceiver, number: int) -> ReceivedSpan:
    [span] = receiver.trace(f"{number:032x}", 1)
    return span


def test_a_request_is_a_server_span_in_its_clients_trace(
    client: httpx.Client, receiver: TraceReceiver
) -> None:
    answer = client.post(EMBEDDINGS, json={"input": SECRET}, headers=headers(1))

    span = only_span(receiver, 1)
    assert (span.name, span.kind, span.parent_id) == (f"POST {EMBEDDINGS}", "server", SPAN)
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": EMBEDDINGS,
        "http.response.status_code": 200,
        "url.path": EMBEDDINGS,
        "url.scheme": "http",
        "triptych.request.id": answer.headers["x-request-id"],
        "triptych.job.id": answer.headers["x-job-id"],
    }


def test_the_job_carries_the_requests_span_and_its_id(
    client: httpx.Client, receiver: TraceReceiver, worker: TestWorker
) -> None:
    client.post(
        EMBEDDINGS,
        json={"input": "x"},
        headers={**headers(2), "tracestate": "vendor=1", "x-request-id": "mine"},
    )

    span, job = only_span(receiver, 2), worker.jobs[-1]
    assert job.traceparent == f"00-{span.trace_id}-{span.span_id}-01"
    assert (job.tracestate, job.request_id) == ("vendor=1", "mine")


def test_a_request_without_a_trace_begins_one(
    client: httpx.Client, receiver: TraceReceiver, worker: TestWorker
) -> None:
    client.post(EMBEDDINGS, json={"input": "begins"})
    trace = worker.jobs[-1].trace
    assert trace is not None
    assert receiver.trace(trace.trace_id, 1)[0].parent_id is None


def test_an_answer_from_the_cache_says_so(client: httpx.Client, receiver: TraceReceiver) -> None:
    body, key = {"input": "again"}, {"Idempotency-Key": "one"}
    client.post(EMBEDDINGS, json=body, headers=key)
    client.post(EMBEDDINGS, json=body, headers={**headers(3), **key})
    assert only_span(receiver, 3).attributes["triptych.reuse"] == "attached"


def test_only_our_own_mistakes_are_errors(
    client: httpx.Client, receiver: TraceReceiver, worker: TestWorker
) -> None:
    failure = Failure(code=FailureCode.INTERNAL, message="broken")
    worker.answer = lambda *_: failure
    client.post(EMBEDDINGS, json={"input": "broken"}, headers=headers(4))
    client.post(EMBEDDINGS, json={}, headers=headers(5))

    ours, theirs = only_span(receiver, 4), only_span(receiver, 5)
    assert ours.is_error
    assert ours.attributes["error.type"] == "500"
    assert not theirs.is_error
    assert theirs.attributes["http.response.status_code"] == 400


def test_a_path_that_nobody_serves_names_no_span(
    client: httpx.Client, receiver: TraceReceiver
) -> None:
    client.get(f"/nowhere?prompt={SECRET}", headers=headers(6))
    span = only_span(receiver, 6)
    assert span.name == "GET"
    assert SECRET not in str(span)


def test_a_path_of_any_length_takes_little_memory(
    client: httpx.Client, receiver: TraceReceiver
) -> None:
    client.get(f"/{'x' * 50_000}", headers=headers(7))
    assert only_span(receiver, 7).attributes["url.path"] == f"/{'x' * 255}"


def test_what_asks_for_no_recording_is_passed_on_unrecorded(
    client: httpx.Client, worker: TestWorker
) -> None:
    unwanted = f"00-{TRACE}-{SPAN}-00"
    client.post(EMBEDDINGS, json={"input": "unrecorded"}, headers={"traceparent": unwanted})
    assert worker.jobs[-1].traceparent == unwanted


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{SPAN}-01", "é"])
def test_a_bad_traceparent_is_as_none(
    http: httpx.Client, worker: TestWorker, traceparent: str
) -> None:
    sent = {b"traceparent": traceparent.encode()}
    answer = http.post(EMBEDDINGS, json={"input": traceparent or "none"}, headers=sent)
    assert answer.status_code == 200
    assert worker.jobs[-1].traceparent is None


def test_two_traceparents_are_as_none(http: httpx.Client, worker: TestWorker) -> None:
    twice = [("traceparent", HEADERS["traceparent"])] * 2
    assert http.post(EMBEDDINGS, json={"input": "twice"}, headers=twice).status_code == 200
    assert worker.jobs[-1].traceparent is None


def test_without_a_collector_a_clients_trace_reaches_the_job(
    http: httpx.Client, worker: TestWorker
) -> None:
    http.post(EMBEDDINGS, json={"input": "passed on"}, headers=HEADERS)
    job = worker.jobs[-1]
    assert (job.traceparent, job.tracestate) == (HEADERS["traceparent"], HEADERS["tracestate"])
