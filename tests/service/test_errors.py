"""Every error leaves in OpenAI's envelope, whatever raised it."""

import logging
import socket
from collections.abc import Iterator

import httpx
import pytest

from service.errors import FAILURE_ANSWERS
from service.main import create_app
from service.settings import ServiceSettings
from tests.service.conftest import TestWorker, error_of, serve, wait_for
from worker.contract.jobs import Failure, FailureCode

EMBEDDINGS = "/v1/embeddings"
JSON = {"content-type": "application/json"}
JSON_ROUTES = [f"/v1/images/{name}" for name in ("generations", "edits", "variations")]
JSON_ROUTES += [EMBEDDINGS, "/v1/classify", "/v1/jobs", "/embed", "/", "/models/vit_shapes"]


def test_every_failure_code_has_an_answer() -> None:
    assert set(FAILURE_ANSWERS) == set(FailureCode)


@pytest.mark.parametrize("code", FailureCode)
def test_a_failure_is_answered_by_its_code(
    http: httpx.Client, worker: TestWorker, code: FailureCode
) -> None:
    failure = Failure(code=code, message="/srv/secret/path broke", param="input")
    worker.answer = lambda _job, _attempt: failure
    answer = FAILURE_ANSWERS[code]
    response = http.post(EMBEDDINGS, json={"input": "x"})
    error = error_of(response, answer.status)
    assert (error["code"], error["type"]) == (code.value, answer.type)
    assert ("secret" in str(error["message"])) == (answer.status == 400)
    assert ("x-should-retry" in response.headers) == (answer.status >= 500)


def test_a_failed_job_shows_the_same_error(http: httpx.Client, worker: TestWorker) -> None:
    failure = Failure(code=FailureCode.GPU_OOM, message="CUDA out of memory at 0x7f")
    worker.answer = lambda _job, _attempt: failure
    response = http.post(EMBEDDINGS, json={"input": "x"})
    job = http.get(response.headers["location"]).json()
    assert job["status"] == "failed"
    assert job["error"]["code"] == "gpu_oom"
    assert "0x7f" not in job["error"]["message"]


def test_an_unknown_path_is_a_404(http: httpx.Client) -> None:
    error = error_of(http.get("/v2/nothing"), 404)
    assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")
    assert error["message"] == 'GET "/v2/nothing" does not exist'


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/images/generations", "POST"),
        ("GET", EMBEDDINGS, "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("PUT", "/v1/jobs", "GET, HEAD, POST"),
        ("PATCH", "/v1/jobs/x", "DELETE, GET, HEAD"),
        ("PUT", "/models/vit_shapes/info", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right(
    http: httpx.Client, method: str, path: str, allowed: str
) -> None:
    response = http.request(method, path)
    error = error_of(response, 405)
    assert error["code"] == "method_not_allowed"
    assert str(error["message"]).endswith(f"allowed: {allowed}")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"", b"[1]", b'"x"'])
def test_a_body_that_is_no_json_object_is_refused(http: httpx.Client, content: bytes) -> None:
    error_of(http.post(EMBEDDINGS, content=content, headers=JSON), 400)


def test_a_syntax_error_names_its_place(http: httpx.Client) -> None:
    error = error_of(http.post(EMBEDDINGS, content=b'{"input": }', headers=JSON), 400)
    assert error["code"] == "invalid_json"
    assert "Expecting value at character 10" in str(error["message"])


@pytest.mark.parametrize("route", [EMBEDDINGS, "/v1/classify"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"input": "\xff"}', "can't decode byte 0xff in position 11"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"input": ' + b"9" * 5000 + b"}", "too many digits"),
    ],
)
def test_a_body_that_does_not_parse_says_why(
    http: httpx.Client, route: str, content: bytes, says: str
) -> None:
    error = error_of(http.post(route, content=content, headers=JSON), 400)
    assert error["code"] == "invalid_json"
    assert says in str(error["message"])
    assert "set_int_max_str_digits" not in str(error["message"])


def test_a_key_of_any_length_is_cut_in_the_answer(http: httpx.Client) -> None:
    error = error_of(http.post(EMBEDDINGS, json={"input": "x", "k" * 100_000: 1}), 400)
    assert error["param"] == "k" * 80 + "…"
    assert len(str(error["message"])) < 150


@pytest.mark.parametrize("headers", [{"content-type": "text/plain"}, {}])
def test_a_body_of_another_type_is_a_415(http: httpx.Client, headers: dict[str, str]) -> None:
    response = http.post(EMBEDDINGS, content=b'{"input": "x"}', headers=headers)
    assert error_of(response, 415)["code"] == "unsupported_media_type"


def test_an_unknown_key_with_half_a_character_is_refused(http: httpx.Client) -> None:
    content = b'{"input": "x", "\\ud800": 1}'
    error_of(http.post(EMBEDDINGS, content=content, headers=JSON), 400)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (b"1," * 600_000, "500000 of the characters , [ {"),
        (b"[" * 600_000, "500000 of the characters , [ {"),
        (b"{}," * 300_000, "500000 of the characters , [ {"),
        (b'"":1,' * 110_000, "100000 of the characters :"),
    ],
)
@pytest.mark.parametrize("route", JSON_ROUTES)
def test_a_body_of_very_many_values_is_refused_unparsed(
    http: httpx.Client, route: str, values: bytes, says: str
) -> None:
    body = b'{"input": [' + values
    error = error_of(http.post(route, content=body, headers=JSON), 413)
    assert error["code"] == "payload_too_large"
    assert error["message"] == f"the request body has more than {says}"


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("content_type", "start", "end"),
    [
        ("application/octet-stream", b"", b""),
        (
            "Multipart/Form-Data; boundary=b",
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n',
            b"\r\n--b--",
        ),
    ],
)
def test_a_file_may_have_any_bytes(
    http: httpx.Client, content_type: str, start: bytes, end: bytes
) -> None:
    content = start + b"[" * 600_000 + end
    response = http.post("/v1/classify", content=content, headers={"content-type": content_type})
    assert error_of(response, 400)["code"] == "invalid_image"


@pytest.mark.parametrize("route", [EMBEDDINGS, "/v1/classify"])
@pytest.mark.usefixtures("redis")
def test_a_large_body_is_a_413_by_its_declared_length(
    settings: ServiceSettings, route: str
) -> None:
    with serve(create_app(settings.model_copy(update={"max_body_bytes": 2000}))) as url:
        response = httpx.post(f"{url}{route}", json={"input": "x" * 3000})
    error = error_of(response, 413)
    assert error["code"] == "payload_too_large"
    assert error["message"] == "the request body is larger than 2000 bytes"


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=b"])
def test_a_large_body_is_counted_while_it_streams(
    settings: ServiceSettings, content_type: str
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(30):
            yield b"x" * 100

    with serve(create_app(settings.model_copy(update={"max_body_bytes": 2000}))) as url:
        headers = {"content-type": content_type}
        response = httpx.post(f"{url}/v1/classify", content=chunks(), headers=headers)
    assert "content-length" not in response.request.headers
    assert error_of(response, 413)["code"] == "payload_too_large"


@pytest.mark.parametrize("route", [EMBEDDINGS, "/v1/classify"])
def test_a_client_that_leaves_within_its_body_is_no_error(
    http: httpx.Client, caplog: pytest.LogCaptureFixture, route: str
) -> None:
    address = (http.base_url.host, http.base_url.port)
    head = f"POST {route} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with caplog.at_level(logging.INFO, logger="service"):
        with socket.create_connection(address) as client:
            client.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
        wait_for(lambda: "status=499" in caplog.text)
    assert f"route={route} status=499" in caplog.text
    assert "event=unhandled" not in caplog.text


def test_a_bug_is_a_500_without_its_insides(
    settings: ServiceSettings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)

    async def broken() -> None:
        raise RuntimeError("insides")

    app.add_api_route("/broken", broken)
    with serve(app) as url:
        response = httpx.get(f"{url}/broken")
    error = error_of(response, 500)
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "insides" not in response.text
    assert response.headers["x-request-id"] in caplog.text
    assert "insides" in caplog.text


@pytest.mark.parametrize(
    ("route", "body"),
    [(EMBEDDINGS, {"input": "x"}), ("/v1/images/generations", {"prompt": "x"})],
)
def test_without_redis_a_post_is_a_503(
    settings: ServiceSettings, route: str, body: dict[str, str]
) -> None:
    nowhere = {"redis_url": "redis://127.0.0.1:1/0"}
    with serve(create_app(settings.model_copy(update=nowhere))) as url:
        response = httpx.post(f"{url}{route}", json=body)
        job = httpx.get(f"{url}/v1/jobs/job_x")
        ready = httpx.get(f"{url}/readyz")
        alive = httpx.get(f"{url}/healthz")
    assert error_of(response, 503)["code"] == "redis_unavailable"
    assert int(response.headers["retry-after"]) >= 1
    assert error_of(job, 503)["code"] == "redis_unavailable"
    assert error_of(ready, 503)["code"] == "redis_unavailable"
    assert alive.status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/v2/nothing", "/v1/embeddings"])
def test_every_response_has_a_request_id(http: httpx.Client, path: str) -> None:
    first, second = http.get(path), http.get(path)
    assert first.headers["x-request-id"].startswith("req_")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_a_request_id_is_echoed(http: httpx.Client) -> None:
    for name in ("x-request-id", "x-client-request-id"):
        response = http.get("/healthz", headers={name: "mine-1"})
        assert response.headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("given", ["a job=fake", "c" * 129, '"', "a\tb"])
def test_a_request_id_that_could_forge_a_log_line_is_replaced(
    http: httpx.Client, given: str
) -> None:
    response = http.get("/healthz", headers={"x-request-id": given})
    assert response.headers["x-request-id"].startswith("req_")


def test_a_prompt_never_reaches_the_log(
    http: httpx.Client, worker: TestWorker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", logger="service"):
        http.post(EMBEDDINGS, json={"input": "a secret wish"})
        # the line comes after the answer
        wait_for(lambda: f"job={worker.jobs[0].id}" in caplog.text)
    assert len(worker.jobs) == 1
    assert "secret" not in caplog.text
