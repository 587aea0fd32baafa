"""`POST /v1/embeddings` over real HTTP."""

import base64
import struct

import httpx
import pytest

from tests.service.conftest import TestWorker, error_of
from worker.contract.jobs import EmbeddingsJob, EmbeddingsResult, Failure, FailureCode

ROUTE = "/v1/embeddings"


@pytest.mark.usefixtures("worker")
def test_a_text_becomes_an_embedding(http: httpx.Client) -> None:
    response = http.post(ROUTE, json={"input": "abc", "model": "f_net_shapes", "user": "u"})
    body = response.json()
    assert response.status_code == 200
    assert body["object"] == "list"
    assert body["model"] == "f_net_shapes"
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    [row] = body["data"]
    assert (row["object"], row["index"], len(row["embedding"])) == ("embedding", 0, 128)
    assert row["embedding"][0] == 3.0


@pytest.mark.usefixtures("worker")
def test_base64_holds_little_endian_float32(http: httpx.Client) -> None:
    texts = {"input": ["a", "bcd"], "dimensions": 128}
    floats = http.post(ROUTE, json=texts | {"encoding_format": "float"}).json()
    packed = http.post(ROUTE, json=texts | {"encoding_format": "base64"}).json()
    for row, other in zip(floats["data"], packed["data"], strict=True):
        content = base64.b64decode(other["embedding"])
        assert list(struct.unpack("<128f", content)) == row["embedding"]


@pytest.mark.usefixtures("worker")
def test_the_order_of_the_input_is_kept(http: httpx.Client) -> None:
    body = http.post(ROUTE, json={"input": ["four", "a", "xx"]}).json()
    assert [row["index"] for row in body["data"]] == [0, 1, 2]
    assert [row["embedding"][0] for row in body["data"]] == [4.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("body", "param", "code", "says"),
    [
        ({}, "input", "missing_required_parameter", "required"),
        ({"input": ""}, "input[0]", "invalid_value", "got 0 characters"),
        ({"input": []}, "input", "invalid_value", "got 0 texts; allowed: 1 to 2048"),
        ({"input": ["x"] * 2049}, "input", "invalid_value", "got 2049 texts"),
        ({"input": ["x", ""]}, "input[1]", "invalid_value", "got 0 characters"),
        ({"input": "x" * 32_001}, "input[0]", "invalid_value", "allowed: 1 to 32000"),
        ({"input": ["x" * 30_000] * 51}, "input", "input_too_long", "got 1530000 characters"),
        ({"input": None}, "input", "invalid_value", "an array of such arrays; got null"),
        ({"input": {"a": 1}}, "input", "invalid_value", "got an object of 1 keys"),
        ({"input": ["x", None]}, "input[1]", "invalid_value", "a valid string; got null"),
        ({"input": ["x", [1]]}, "input[1]", "invalid_value", "a valid string; got an array"),
        ({"input": [1, "x"]}, "input[1]", "invalid_value", 'a valid integer; got "x"'),
        ({"input": [1, 2.5]}, "input[1]", "invalid_value", "a valid integer; got 2.5"),
        ({"input": [True]}, "input[0]", "invalid_value", "a valid integer; got true"),
        ({"input": [[1], [2, "x"]]}, "input[1][1]", "invalid_value", "a valid integer"),
        ({"input": [[1], "x"]}, "input[1]", "invalid_value", 'a valid list; got "x"'),
        ({"input": [1, 5, 6, 1000]}, "input[3]", "invalid_value", "got 1000; allowed: 0 to 999"),
        ({"input": [[1], [5, -1]]}, "input[1][1]", "invalid_value", "got -1; allowed: 0 to 999"),
        ({"input": [10**400]}, "input[0]", "invalid_value", "allowed: 0 to 999"),
        ({"input": [[1], []]}, "input[1]", "invalid_value", "got 0 token ids; allowed: 1 to 510"),
        ({"input": [1] * 511}, "input", "input_too_long", "got 511 token ids; allowed: 1 to 510"),
        ({"input": [[1] * 511]}, "input[0]", "input_too_long", "allowed: 1 to 510"),
        ({"input": [1] * 32_001, "truncate": True}, "input", "input_too_long", "1 to 32000"),
        ({"input": [[1] * 500] * 601}, "input", "input_too_long", "got 300500 token ids"),
        ({"input": [[1]] * 2049}, "input", "invalid_value", "got 2049 texts"),
        ({"input": "x", "pooling": "max"}, "pooling", "invalid_value", "'mean' or 'cls'"),
        ({"input": "x", "normalize": 1}, "normalize", "invalid_value", "a valid boolean"),
        (
            {"input": "x", "truncation_direction": "left"},
            "truncation_direction",
            "invalid_value",
            'got "left" without truncate; allowed: null',
        ),
        ({"input": "x", "dimensions": 64}, "dimensions", "invalid_value", "allowed: 128 or null"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format", "invalid_value", "'float'"),
        ({"input": "x", "prompt": "y"}, "prompt", "unknown_parameter", "unknown"),
    ],
)
def test_a_bad_body_is_named(
    http: httpx.Client, body: dict[str, object], param: str, code: str, says: str
) -> None:
    error = error_of(http.post(ROUTE, json=body), 400)
    assert (error["param"], error["code"]) == (param, code)
    assert says in str(error["message"])


def only_job(worker: TestWorker) -> EmbeddingsJob:
    [job] = worker.jobs
    assert isinstance(job, EmbeddingsJob)
    return job


def test_means_of_unit_length_are_the_default(http: httpx.Client, worker: TestWorker) -> None:
    nulls = dict.fromkeys(("pooling", "normalize", "truncate", "truncation_direction"))
    response = http.post(ROUTE, json={"input": "abc", **nulls})
    job = only_job(worker)
    assert (job.texts, job.pooling, job.normalizes, job.truncates) == (
        ("abc",),
        "mean",
        True,
        False,
    )
    assert "truncated" not in response.json()


def test_what_is_made_of_the_tokens_can_be_chosen(http: httpx.Client, worker: TestWorker) -> None:
    body = {"input": "abc", "pooling": "cls", "normalize": False, "truncate": True}
    assert http.post(ROUTE, json=body | {"truncation_direction": "left"}).status_code == 200
    job = only_job(worker)
    assert (job.pooling, job.normalizes) == ("cls", False)
    assert (job.truncates, job.truncation_side) == (True, "left")


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ([5, 6], ((5, 6),)),
        ([[5, 6], [7]], ((5, 6), (7,))),
        ([0], ((0,),)),
        ([1] * 510, ((1,) * 510,)),
    ],
)
def test_a_flat_array_of_token_ids_is_one_text(
    http: httpx.Client, worker: TestWorker, value: object, texts: tuple[tuple[int, ...], ...]
) -> None:
    response = http.post(ROUTE, json={"input": value})
    assert [row["index"] for row in response.json()["data"]] == list(range(len(texts)))
    assert only_job(worker).texts == texts


def test_2048_texts_are_taken(http: httpx.Client, worker: TestWorker) -> None:
    texts = [str(number) for number in range(2048)]
    response = http.post(ROUTE, json={"input": texts, "encoding_format": "base64"})
    assert len(response.json()["data"]) == 2048
    assert only_job(worker).texts == tuple(texts)


def test_more_token_ids_than_the_model_takes_can_be_cut(
    http: httpx.Client, worker: TestWorker
) -> None:
    worker.answer = lambda _job, _attempt: EmbeddingsResult(
        embeddings=("AACAPw==",) * 3, num_tokens=1030, truncated=(0, 2)
    )
    body = {"input": [[1] * 511, [1] * 4, [1] * 600], "truncate": True}
    response = http.post(ROUTE, json=body).json()
    assert response["truncated"] == [0, 2]
    assert response["usage"] == {"prompt_tokens": 1030, "total_tokens": 1030}


def test_nothing_that_was_cut_is_told_as_well(http: httpx.Client, worker: TestWorker) -> None:  # noqa: ARG001
    assert http.post(ROUTE, json={"input": "x", "truncate": True}).json()["truncated"] == []


def test_a_text_that_the_worker_finds_too_long_is_named(
    http: httpx.Client, worker: TestWorker
) -> None:
    failure = Failure(
        code=FailureCode.INPUT_TOO_LONG,
        message="input[1]: got 513 tokens; allowed: at most 512",
        param="input[1]",
    )
    worker.answer = lambda _job, _attempt: failure
    error = error_of(http.post(ROUTE, json={"input": ["a", "b"]}), 400)
    assert (error["param"], error["code"]) == ("input[1]", "input_too_long")
    assert error["message"] == failure.message
