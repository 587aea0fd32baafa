"""`POST /v1/classify` over real HTTP."""

import base64

import httpx
import pytest

from service.main import create_app
from service.settings import ServiceSettings
from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of, serve
from worker.contract.jobs import ClassifyJob, ClassifyResult, Failure, FailureCode, Prediction

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


def test_five_labels_by_softmax_are_the_default(http: httpx.Client, worker: TestWorker) -> None:
    nulls = dict.fromkeys(("model", "top_k", "function_to_apply", "labels", "include_probs"))
    response = http.post(ROUTE, json={"input": PNG_BASE64, "user": "u", **nulls})
    job = only_job(worker)
    assert (job.top_k, job.function, job.labels, job.includes_scores) == (5, "softmax", None, False)
    assert not {"probs", "num_classes"} & set(response.json()["data"][0])


@pytest.mark.parametrize(
    ("labels", "wanted", "top_k"),
    [
        ("label 7", ("label 7",), 1),
        (["label 9", "label 2", "label 9"], ("label 2", "label 9"), 2),
        ([f"label {i}" for i in range(6)], tuple(f"label {i}" for i in range(6)), 5),
    ],
)
def test_a_filter_leaves_no_more_labels_than_it_has(
    http: httpx.Client,
    worker: TestWorker,
    labels: str | list[str],
    wanted: tuple[str, ...],
    top_k: int,
) -> None:
    assert http.post(ROUTE, json={"input": PNG_BASE64, "labels": labels}).status_code == 200
    assert (only_job(worker).labels, only_job(worker).top_k) == (wanted, top_k)


def test_all_scores_can_be_asked_for(http: httpx.Client, worker: TestWorker) -> None:
    best = (Prediction(label="label 1", class_id=1, score=0.75),)
    worker.answer = lambda _job, _attempt: ClassifyResult(
        predictions=(best, best), scores=((0.25, 0.75), (0.125, 0.875))
    )
    body = {"input": [PNG_BASE64, PNG_BASE64], "include_probs": True}
    rows = http.post(ROUTE, json=body).json()["data"]
    assert [row["probs"] for row in rows] == [[0.25, 0.75], [0.125, 0.875]]
    assert [row["num_classes"] for row in rows] == [2, 2]
    assert only_job(worker).includes_scores


def test_hugging_faces_names_ask_for_the_same(http: httpx.Client, worker: TestWorker) -> None:
    parameters = {"top_k": 2, "function_to_apply": "sigmoid"}
    body = {"inputs": PNG_BASE64, "parameters": parameters, "model": "vit_shapes"}
    assert http.post(ROUTE, json=body).status_code == 200
    assert http.post(ROUTE, json={"input": PNG_BASE64, **parameters}).headers["x-cache"] == "hit"
    assert (only_job(worker).top_k, only_job(worker).function) == (2, "sigmoid")


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "image/jpeg", "IMAGE/WEBP", "application/octet-stream; charset=binary"],
)
def test_an_image_comes_as_the_body_itself(
    http: httpx.Client, worker: TestWorker, content_type: str
) -> None:
    query = "top_k=2&function_to_apply=none&labels=label%201&labels=label%202&include_probs=true"
    response = http.post(
        f"{ROUTE}?{query}&priority=high", content=PNG, headers={"content-type": content_type}
    )
    assert response.status_code == 200
    job = only_job(worker)
    assert job.images == (PNG_BASE64,)
    assert (job.top_k, job.function, job.priority) == (2, "none", "high")
    assert (job.labels, job.includes_scores) == (("label 1", "label 2"), True)


@pytest.mark.parametrize(
    ("query", "param", "code", "says"),
    [
        ("topk=1", "topk", "unknown_parameter", "unknown parameter"),
        ("input=x", "input", "unknown_parameter", "unknown parameter"),
        ("top_k=many", "top_k", "invalid_value", 'got "many"'),
        ("top_k=1&top_k=2", "top_k", "invalid_value", "got an array of 2"),
        ("top_k=113", "top_k", "invalid_value", "allowed: 1 to 112"),
        ("labels=label%201&labels=sloth", "labels[1]", "invalid_value", 'got "sloth"'),
        ("model=x", "model", "model_not_found", "does not exist here"),
    ],
)
def test_a_bad_query_of_an_image_is_named(
    http: httpx.Client, query: str, param: str, code: str, says: str
) -> None:
    response = http.post(f"{ROUTE}?{query}", content=PNG, headers={"content-type": "image/png"})
    error = error_of(response, 404 if code == "model_not_found" else 400)
    assert (error["param"], error["code"]) == (param, code)
    assert says in str(error["message"])


def test_a_query_is_for_images_as_bodies_alone(http: httpx.Client) -> None:
    error = error_of(http.post(f"{ROUTE}?top_k=1", json={"input": PNG_BASE64}), 400)
    assert error["param"] == "top_k"
    assert "only beside an image that is the whole body" in str(error["message"])


def test_a_bad_image_has_one_name_in_every_kind_of_body(http: httpx.Client) -> None:
    png, bad = base64.b64encode(PNG).decode(), base64.b64encode(b"GIF89a").decode()
    files = [("file", ("a.png", PNG)), ("file", ("b.png", PNG)), ("file", ("c.gif", b"GIF89a"))]
    raw = http.post(ROUTE, content=b"GIF89a", headers={"content-type": "image/png"})
    errors = [
        error_of(http.post(ROUTE, json={"input": [png, png, bad]}), 400),
        error_of(http.post(ROUTE, files=files), 400),
        error_of(raw, 400),
        error_of(http.post(ROUTE, json={"input": bad}), 400),
    ]
    assert [error["param"] for error in errors] == ["input[2]", "input[2]", "input[0]", "input[0]"]
    assert {error["code"] for error in errors} == {"invalid_image"}


def test_files_of_two_names_have_no_order_and_are_refused(http: httpx.Client) -> None:
    files = [("file", ("a.png", PNG)), ("image", ("b.jpg", JPEG))]
    error = error_of(http.post(ROUTE, files=files), 400)
    assert error["message"] == "image: given beside file; allowed: files of one name"


@pytest.mark.parametrize("field", ["file", "image"])
def test_files_are_uploaded_as_a_form(http: httpx.Client, worker: TestWorker, field: str) -> None:
    files = [(field, ("a.png", PNG)), (field, ("b.jpg", JPEG))]
    fields = {"top_k": "3", "model": "vit_shapes", "labels": [f"label {i}" for i in range(4)]}
    response = http.post(ROUTE, files=files, data=fields)
    assert response.status_code == 200
    assert [base64.b64decode(image) for image in only_job(worker).images] == [PNG, JPEG]
    assert only_job(worker).top_k == 3


@pytest.mark.parametrize(
    ("body", "param", "code", "says"),
    [
        ({}, "input", "missing_required_parameter", "required"),
        ({"input": []}, "input", "invalid_value", "got 0 images; allowed: 1 to 32"),
        ({"input": [PNG_BASE64] * 33}, "input", "invalid_value", "allowed: 1 to 32"),
        ({"input": ""}, "input[0]", "invalid_image", "starts with nothing"),
        ({"input": "not base64!"}, "input[0]", "invalid_image", "not base64"),
        ({"input": [PNG_BASE64, "aGk="]}, "input[1]", "invalid_image", "PNG, JPEG or WebP"),
        ({"input": "https://example.com/a.png"}, "input[0]", "unsupported_value", "not fetched"),
        ({"input": "data:image/png,abc"}, "input[0]", "invalid_value", "a data URI in base64"),
        ({"input": 5}, "input", "invalid_value", "a string or an array of strings; got 5"),
        ({"input": PNG_BASE64, "top_k": 0}, "top_k", "invalid_value", "or equal to 1"),
        ({"input": PNG_BASE64, "top_k": 113}, "top_k", "invalid_value", "allowed: 1 to 112"),
        ({"input": PNG_BASE64, "topk": 1}, "topk", "unknown_parameter", "unknown"),
        (
            {"input": PNG_BASE64, "function_to_apply": "tanh"},
            "function_to_apply",
            "invalid_value",
            "'softmax', 'sigmoid' or 'none'",
        ),
        ({"input": PNG_BASE64, "labels": []}, "labels", "invalid_value", "got none"),
        ({"input": PNG_BASE64, "labels": [1]}, "labels[0]", "invalid_value", "a valid string"),
        ({"input": [PNG_BASE64, {}]}, "input[1]", "invalid_value", "got an object of 0 keys"),
        ({"input": {}}, "input", "invalid_value", "allowed: a string or an array of strings"),
        ({"input": PNG_BASE64, "labels": "x"}, "labels", "invalid_value", 'got "x"; allowed: one'),
        (
            {"input": PNG_BASE64, "labels": ["label 1", "sloth"]},
            "labels[1]",
            "invalid_value",
            'got "sloth"; allowed: one of the 112 labels that GET /v1/models/vit_shapes lists',
        ),
        (
            {"input": PNG_BASE64, "labels": ["label 1", "label 1"], "top_k": 2},
            "top_k",
            "invalid_value",
            "allowed: 1 to 1",
        ),
        ({"input": PNG_BASE64, "include_probs": 1}, "include_probs", "invalid_value", "boolean"),
        ({"inputs": PNG_BASE64, "input": PNG_BASE64}, "input", "invalid_value", "beside Hugging"),
        ({"input": PNG_BASE64, "parameters": {}}, "input", "invalid_value", "beside Hugging"),
        ({"inputs": PNG_BASE64, "top_k": 1}, "top_k", "invalid_value", "beside Hugging"),
        ({"parameters": {}}, "inputs", "missing_required_parameter", "required"),
        ({"inputs": []}, "inputs", "invalid_value", "got 0 images; allowed: 1 to 32"),
        ({"inputs": ["aGk="]}, "input[0]", "invalid_image", "PNG, JPEG or WebP"),
        (
            {"inputs": PNG_BASE64, "parameters": {"top_k": 0}},
            "parameters.top_k",
            "invalid_value",
            "or equal to 1; got 0",
        ),
        (
            {"inputs": PNG_BASE64, "parameters": {"topk": 1}},
            "parameters.topk",
            "unknown_parameter",
            "unknown parameter",
        ),
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
        ({"image": "text"}, "image", "got text; allowed: a file"),
        ({"labels": "sloth"}, "labels", 'got "sloth"'),
        ({"labels[]": ["label 1", "sloth"]}, "labels[1]", 'got "sloth"'),
        ({"top_k": ["1", "2"]}, "top_k", "got an array of 2"),
        ({"include_probs": "perhaps"}, "include_probs", 'got "perhaps"'),
    ],
)
def test_a_bad_field_of_a_form_is_named(
    http: httpx.Client, fields: dict[str, str | list[str]], param: str, says: str
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
    assert error["message"] == f"input[0]: got {len(PNG)} bytes; allowed: at most 10"


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


@pytest.mark.parametrize("content_type", ["image/gif", "text/plain", ""])
def test_another_content_type_is_a_415(http: httpx.Client, content_type: str) -> None:
    response = http.post(ROUTE, content=PNG, headers={"content-type": content_type})
    error = error_of(response, 415)
    assert error["code"] == "unsupported_media_type"
    assert "application/json, multipart/form-data, image/png" in str(error["message"])


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(http: httpx.Client, content: bytes) -> None:
    response = http.post(ROUTE, content=content, headers={"content-type": "application/json"})
    error = error_of(response, 400)
    assert error["param"] is None
    assert str(error["message"]).startswith("the request body ")
