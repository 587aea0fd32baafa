"""JSON that is put together from parts is the JSON that one call would give."""

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest
from pydantic import BaseModel

from service.json_response import json_in_rows, json_with_images
from service.schemas.embeddings import Embedding, EmbeddingsResponse, EmbeddingsUsage
from service.schemas.fields import ResponseBody
from service.schemas.images import ImageItem
from service.schemas.jobs import JobObject, JobUrls
from service.schemas.tei import EmbedResponse
from tests.service.conftest import PNG, TestWorker
from worker.contract.jobs import EmbeddingsResult, ImageResult
from worker.contract.record import AnyJob, Outcome

ROUTE = "/v1/images/generations"
TRICKY = {'"data":[]': '"b64_json":""', '\\"data\\":[]': '","data":[],"'}
VECTORS = EmbeddingsResponse(
    data=[
        Embedding(index=0, embedding=[0.1, 1e-9, -3.0]),
        Embedding(index=1, embedding="AACAPw=="),
    ],
    model="m",
    usage=EmbeddingsUsage(prompt_tokens=2, total_tokens=2),
    id='"data":[]',
)
JOB = JobObject(
    id="job_1",
    type="text.embedding",
    status="succeeded",
    priority="normal",
    metadata=TRICKY,
    created_at=1.0,
    started_at=1.5,
    finished_at=2.0,
    deadline_at=None,
    expires_at=None,
    queue_position=None,
    progress=None,
    attempt=1,
    attempts=[],
    model="m",
    result=VECTORS,
    error=None,
    urls=JobUrls(self="s", cancel="c", events="e", result="r"),
)
LARGE = PNG + bytes(range(256)) * 12_000  # 3 MB


@pytest.mark.parametrize(
    "body",
    [
        VECTORS,
        VECTORS.model_copy(update={"data": VECTORS.data[:1]}),
        VECTORS.model_copy(update={"data": []}),
        JOB,
        JOB.model_copy(update={"result": None}),
    ],
)
def test_rows_stand_where_they_would(body: JobObject | EmbeddingsResponse) -> None:
    assert json_in_rows(body).body == body.model_dump_json().encode()


def test_images_stand_where_they_would() -> None:
    class Answer(ResponseBody):
        words: dict[str, str] = TRICKY
        data: list[ImageItem]

    def answer(*images: str) -> Answer:
        items = [ImageItem(b64_json=image, seed=1, width=8, height=8) for image in images]
        return Answer(data=items)

    whole = answer("AAAA", "", "/+8=").model_dump_json().encode()
    assert json_with_images(answer("", "", ""), [b"AAAA", b"", b"/+8="]).body == whole


def test_vectors_alone_are_those_of_the_schema() -> None:
    vectors = [[0.5, -2.0], [1.0, 0.1]]
    encoded = (base64.b64encode(b"\0\0\0?\0\0\0\xc0").decode(), "AACAP83MzD0=")
    dumped = EmbedResponse.json_of(EmbeddingsResult(embeddings=encoded, num_tokens=2))
    assert json.loads(dumped) == [[pytest.approx(value) for value in row] for row in vectors]
    assert dumped == EmbedResponse(json.loads(dumped)).model_dump_json().encode()


@contextmanager
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[tuple[int, str]]]]:
    """By call: how many bytes or letters went through it, and in which thread."""
    calls: dict[str, list[tuple[int, str]]] = {"dump": [], "base64": []}
    dump, encode = BaseModel.model_dump_json, base64.b64encode

    def dumped(body: BaseModel, exclude: dict[str, bool | set[str]] | None = None) -> str:
        text = dump(body, exclude=exclude)
        if type(body).__module__.startswith("service."):  # the worker's own are not answers
            calls["dump"].append((len(text), threading.current_thread().name))
        return text

    def encoded(content: bytes) -> bytes:
        calls["base64"].append((len(content), threading.current_thread().name))
        return encode(content)

    with monkeypatch.context() as patch:
        patch.setattr(BaseModel, "model_dump_json", dumped)
        patch.setattr(base64, "b64encode", encoded)
        yield calls


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_no_call_of_an_answer_has_a_whole_image(
    http: httpx.Client,
    worker: TestWorker,
    monkeypatch: pytest.MonkeyPatch,
    fields: Mapping[str, object],
) -> None:
    def paint(job: AnyJob, attempt: int) -> Outcome | None:
        result = worker.default_answer(job, attempt)
        assert isinstance(result, ImageResult)
        for image in result.images:
            worker.image_files.path(image.file_name).write_bytes(LARGE)
        return result

    worker.answer = paint
    with measured(monkeypatch) as calls:
        text = http.post(ROUTE, json={"prompt": "x", "n": 2, **fields}).text
    assert text.count(f'"b64_json":"{base64.b64encode(LARGE).decode()}"') == 2
    assert max(size for size, _ in calls["dump"]) < 10_000
    assert max(size for size, _ in calls["base64"]) < 2**20
    assert {name.partition(" ")[0] for _, name in calls["base64"]} == {"AnyIO"}


@pytest.mark.usefixtures("worker")
def test_no_call_of_an_answer_has_all_vectors(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"input": ["x"] * 400}
    with measured(monkeypatch) as calls:
        job_id = http.post("/v1/embeddings", json=body).json()["id"]
        http.get(f"/v1/jobs/{job_id}")
        http.get(f"/v1/jobs/{job_id}/result")
        http.post("/embed", json={"inputs": body["input"]})
    assert max(size for size, _ in calls["dump"]) < 5_000
