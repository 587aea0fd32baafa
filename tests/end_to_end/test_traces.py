"""A request's trace from HTTP to PNG, by the running service, at a receiver of OTLP."""

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import httpx
import pytest
from PIL import Image

from benchmarks.trace import ReceivedSpan, TraceReceiver, tree
from tests.running_service import Service, poll_until, start_service, stop_service

CALLER = "00f067aa0ba902b7"
PROMPT = "a red circle"


@dataclass(frozen=True, slots=True)
class Traced:
    service: Service
    receiver: TraceReceiver

    def ask(
        self, path: str, body: Mapping[str, object], number: int, num_spans: int
    ) -> list[ReceivedSpan]:
        """Ask within a trace of its own, and wait for all of it."""
        trace_id = f"{number:032x}"
        headers = {"traceparent": f"00-{trace_id}-{CALLER}-01", "x-request-id": f"request-{number}"}
        answer = httpx.post(f"{self.service.url}{path}", json=body, headers=headers, timeout=120)
        assert answer.status_code == httpx.codes.OK, answer.text
        return self.receiver.trace(trace_id, num_spans)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with TraceReceiver() as receiver:
        service = start_service(
            tmp_path_factory.mktemp("data"), **receiver.environment, TRIPTYCH_LOG_FORMAT="json"
        )
        yield Traced(service, receiver)
        stop_service(service)


def below(parent: ReceivedSpan, spans: Sequence[ReceivedSpan]) -> list[str]:
    """The names of its parts, in the order in which they began."""
    parts = [span for span in spans if span.parent_id == parent.span_id]
    return [span.name for span in sorted(parts, key=lambda span: span.start_ns)]


def named(spans: Sequence[ReceivedSpan], name: str) -> ReceivedSpan:
    [found] = [span for span in spans if span.name == name]
    return found


def red_square() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_an_image_is_one_trace_from_http_to_png(traced: Traced) -> None:
    body = {"prompt": PROMPT, "num_inference_steps": 3, "size": "64x96"}
    spans = traced.ask("/v1/images/generations", body, 1, 8)

    request = named(spans, "POST /v1/images/generations")
    run, denoise = named(spans, "run images"), named(spans, "denoise")
    assert request.parent_id == CALLER
    assert below(request, spans) == ["queue images", "run images"]
    assert below(run, spans) == ["text_encode", "denoise", "vae_decode", "image_encode", "store"]
    assert (request.service, run.service) == ("triptych-api", "triptych-worker")
    assert request.start_ns <= run.start_ns <= denoise.start_ns <= denoise.end_ns <= run.end_ns
    assert denoise.attributes["triptych.steps"] == 3
    assert denoise.attributes["triptych.image.width"] == 64
    assert denoise.attributes["triptych.image.height"] == 96
    assert denoise.attributes["triptych.rows"] == 1
    assert run.attributes["triptych.job.id"] == request.attributes["triptych.job.id"]
    assert PROMPT not in tree(spans)


def test_a_classification_is_prepared_and_has_its_forward(traced: Traced) -> None:
    spans = traced.ask("/v1/classify", {"input": red_square()}, 2, 5)
    assert below(named(spans, "run classify"), spans) == ["preprocess", "forward"]
    assert named(spans, "forward").attributes["triptych.batch.rows"] == 1


def test_an_embedding_says_how_many_rows_its_forward_had(traced: Traced) -> None:
    spans = traced.ask("/v1/embeddings", {"input": ["a red star", "a blue star"]}, 3, 5)
    assert below(named(spans, "run embeddings"), spans) == ["tokenize", "forward"]
    assert named(spans, "forward").attributes["triptych.batch.rows"] == 2


def test_a_kept_answer_has_the_requests_span_alone(traced: Traced) -> None:
    body = {"input": "a green cross"}
    traced.ask("/v1/embeddings", body, 4, 5)
    [request] = traced.ask("/v1/embeddings", body, 5, 1)
    assert request.attributes["triptych.reuse"] == "hit"


def test_the_log_knows_the_trace_and_the_request_of_each_job(traced: Traced) -> None:
    spans = traced.ask("/v1/embeddings", {"input": "a purple ring"}, 6, 5)
    job_id = named(spans, "run embeddings").attributes["triptych.job.id"]

    def endings() -> list[dict[str, object]]:
        lines = traced.service.log.read_text().splitlines(keepends=True)
        said = [json.loads(line) for line in lines if line[0] == "{" and line[-1] == "\n"]
        return [each for each in said if each.get("event") == "job_ended" and each["job"] == job_id]

    poll_until(lambda: bool(endings()))  # it is written after the span
    [ended] = endings()
    assert (ended["request_id"], ended["trace_id"]) == ("request-6", f"{6:032x}")
    assert ended["attempt"] == 1
