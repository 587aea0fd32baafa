"""`POST /v1/embeddings` over real HTTP."""

import base64
import struct

import httpx
import pytest

from tests.service.conftest import TestWorker, error_of
from worker.contract.jobs import Failure, FailureCode

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
        ({"input": ""}, "input", "invalid_value", "got 0 characters"),
        ({"input": []}, "input", "invalid_value", "got 0 texts; allowed: 1 to 2048"),
        ({"input": ["x"] * 2049}, "input", "invalid_value", "got 2049 texts"),
        ({"input": ["x", ""]}, "input[1]", "invalid_value", "got 0 characters"),
        ({"input": "x" * 32_001}, "input", "invalid_value", "allowed: 1 to 32000"),
        ({"input": [1, 2]}, "input", "unsupported_value", "arrays of token ids"),
        ({"input": [[1, 2]]}, "input", "unsupported_value", "arrays of token ids"),
        ({"input": None}, "input", "invalid_value", "a string or an array of strings; got null"),
        ({"input": ["x", None]}, "input", "invalid_value", "item 1 is no string"),
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
