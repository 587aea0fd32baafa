"""`POST /v1/classify` over real HTTP."""

import base64

import httpx
import pytest

from service.main import create_app
from service.settings import ServiceSettings
from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of, serve
from worker.contract.jobs import ClassifyJob, Failure, FailureCode

ROUTE = "/v1/classify"
JPEG = b"\xff\xd8\xff\xe0 only its first bytes count here"
WEBP = b"RIFF\0\0\0\0WEBPVP8 "


def only_job(worker: TestWorker) -> ClassifyJob:
    [job] = worker.jobs
    assert isinstance(job, ClassifyJob)
    return job


def test_an_image_gets_its_best_labels(http: httpx.Client, worker: TestWorker) -> None:
    response = http.post(ROUTE, json={"input": PNG_BASE64, "top_k": 2})
    body = response.json()
    assert response.status_code == 200
    assert body["object"] == "list"
    assert body["model"] == "vit_shapes"
    assert body["usage"] == {"images": 1, "prompt_tokens": 0, "total_tokens": 0}
    [row] = body["data"]
    assert (row["index"], row["label"], row["score"]) == (0, "label 0", 0.5)
    assert [p["class_id"] for p in row["predictions"]] == [0, 1]
    assert only_job(worker).images == (PNG_BASE64,)


@pytest.mark.parametrize(
    "text",
    [
        PNG_BASE64,
        f"data:image/png;base64,{PNG_BASE64}",
        f"data:image/png;name=x;BASE64,{PNG_BASE64}",
        f"{PNG_BASE64[:40]}\n{PNG_BASE64[40:]}\n",
    ],
)
def test_an_image_comes_as_base64_or_data_uri(
    http: httpx.Client, worker: TestWorker, text: str
) -> None:
    assert http.post(ROUTE, json={"input": text}).status_code == 200
    assert base64.b64decode(only_job(worker).images[0]) == PNG


def test_a_list_keeps_its_order(http: httpx.Client, worker: TestWorker) -> None:
    images = [base64.b64encode(image).decode() for image in (PNG, JPEG, WEBP)]
    body = http.post(ROUTE, json={"input": images}).json()
    assert [row["index"] for row in body["data"]] == [0, 1, 2]
    assert only_job(worker).images == tuple(images)


def test_five_labels_are_the_default(http: httpx.Client, worker: TestWorker) -> None:
    http.post(ROUTE, json={"input": PNG_BASE64, "model": None, "top_k": None, "user": "u"})
    assert only_job(worker).top_k == 5


@pytest.mark.parametrize("field", ["file", "image"])
def test_files_are_uploaded_as_a_form(http: httpx.Client, worker: TestWorker, field: str) -> None:
    files = [(field, ("a.png", PNG)), (field, ("b.jpg", JPEG))]
    response = http.post(ROUTE, files=files, data={"top_k": "3", "model": "vit_shapes"})
    assert response.status_code == 200
    assert [base64.b64decode(image) for image in only_job(worker).images] == [PNG, JPEG]
    assert only_job(worker).top_k == 3


@pytest.mark.parametrize(
    ("body", "param", "code", "says"),
    [
        ({}, "input", "missing_required_parameter", "required"),
        ({"input": []}, "input", "invalid_value", "got 0 images; allowed: 1 to 32"),
        ({"input": [PNG_BASE64] * 33}, "input", "invalid_value", "allowed: 1 to 32"),
        ({"input": ""}, "input", "invalid_image", "starts with nothing"),
        ({"input": "not base64!"}, "input", "invalid_image", "not base64"),
        ({"input": [PNG_BASE64, "aGk="]}, "input[1]", "invalid_image", "PNG, JPEG or WebP"),
        ({"input": "https://example.com/a.png"}, "input", "unsupported_value", "not fetched"),
        ({"input": "data:image/png,abc"}, "input", "invalid_value", "a data URI in base64"),
        ({"input": 5}, "input", "invalid_value", "a string or an array of strings; got 5"),
        ({"input": PNG_BASE64, "top_k": 0}, "top_k", "invalid_value", "or equal to 1"),
        ({"input": PNG_BASE64, "top_k": 113}, "top_k", "invalid_value", "allowed: 1 to 112"),
        ({"input": PNG_BASE64, "topk": 1}, "topk", "unknown_parameter", "unknown"),
    ],
)
def test_a_bad_body_is_named(
    http: httpx.Client, body: dict[str, object], param: str, code: str, says: str
) -> None:
    error = error_of(http.post(ROUTE, json=body), 400)
    assert (error["param"], error["code"]) == (param, code)
    assert says in str(error["message"])


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"top_k": "many"}, "top_k", 'got "many"'),
        ({"top_k": "999"}, "top_k", "allowed: 1 to 112"),
        ({"colour": "red"}, "colour", "unknown parameter"),
        ({"image": "text"}, "file[0]", "got text; allowed: a file"),
    ],
)
def test_a_bad_field_of_a_form_is_named(
    http: httpx.Client, fields: dict[str, str], param: str, says: str
) -> None:
    files = [("file", ("a.png", PNG))]
    error = error_of(http.post(ROUTE, files=files, data=fields), 400)
    assert error["param"] == param
    assert says in str(error["message"])


@pytest.mark.parametrize("field", ["top_k", "model"])
def test_a_file_where_text_belongs_is_refused(http: httpx.Client, field: str) -> None:
    files = [("file", ("a.png", PNG)), (field, ("a.txt", b"3"))]
    error = error_of(http.post(ROUTE, files=files), 400)
    assert error["message"] == f"{field}: got a file; allowed: text"
    assert error["param"] == field


def test_a_form_without_files_is_refused(http: httpx.Client) -> None:
    response = http.post(ROUTE, files={"top_k": (None, "3")})
    assert error_of(response, 400)["message"] == "file: got 0 images; allowed: 1 to 32"


def test_an_image_that_is_too_large_is_refused(settings: ServiceSettings) -> None:
    with serve(create_app(settings.model_copy(update={"max_image_bytes": 10}))) as url:
        error = error_of(httpx.post(f"{url}{ROUTE}", json={"input": PNG_BASE64}), 400)
    assert error["code"] == "image_too_large"
    assert error["message"] == f"input: got {len(PNG)} bytes; allowed: at most 10"


def test_the_workers_word_on_an_image_reaches_the_client(
    http: httpx.Client, worker: TestWorker
) -> None:
    failure = Failure(
        code=FailureCode.INVALID_IMAGE, message="input[0]: truncated", param="input[0]"
    )
    worker.answer = lambda _job, _attempt: failure
    error = error_of(http.post(ROUTE, json={"input": PNG_BASE64}), 400)
    assert error["param"] == "input[0]"
    assert error["message"] == "input[0]: truncated"
    assert error["code"] == "invalid_image"


@pytest.mark.parametrize("content_type", ["image/png", "text/plain"])
def test_another_content_type_is_a_415(http: httpx.Client, content_type: str) -> None:
    response = http.post(ROUTE, content=PNG, headers={"content-type": content_type})
    error = error_of(response, 415)
    assert error["code"] == "unsupported_media_type"
    assert "application/json, multipart/form-data" in str(error["message"])


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(http: httpx.Client, content: bytes) -> None:
    response = http.post(ROUTE, content=content, headers={"content-type": "application/json"})
    error = error_of(response, 400)
    assert error["param"] is None
    assert str(error["message"]).startswith("the request body ")
