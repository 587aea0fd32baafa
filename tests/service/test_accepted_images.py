"""`Accept: image/…`: the image itself as the answer."""

import httpx
import pytest

from tests.service.conftest import PNG, TestWorker, error_of
from worker.contract.jobs import ImageJob

ROUTE = "/v1/images/generations"


def post(http: httpx.Client, accept: str, **fields: object) -> httpx.Response:
    return http.post(ROUTE, json={"prompt": "x", **fields}, headers={"accept": accept})


@pytest.mark.parametrize(
    ("accept", "fields", "output_format"),
    [
        ("image/png", {}, "png"),
        ("image/jpeg", {"n": 1}, "jpeg"),
        ("Image/WebP", {}, "webp"),
        ("image/*", {}, "png"),
        ("image/*", {"output_format": "jpeg"}, "jpeg"),
        ("image/jpeg;q=0.5, image/webp; q=0.9", {}, "webp"),
        ("image/webp, image/png", {"output_format": "png"}, "png"),
        ("image/avif,image/webp,*/*;q=0.8", {}, "webp"),
        ("image/png, application/json;q=0.5", {}, "png"),
        ("image/png, image/*;q=0", {}, "png"),
        ("application/json;q=0, */*", {}, "png"),
        ("application/json;q=0, */*", {"output_format": "webp"}, "webp"),
        ("application/json;q=0.1, image/png;q=0.5, image/*;q=0.2, */*;q=0.9", {}, "png"),
        ("application/json;q=0.1, image/png;q=0.5, */*;q=0.9", {}, "jpeg"),
        ("application/*;q=0.5, application/json;q=0.1, image/webp;q=0.2", {}, "webp"),
    ],
)
def test_an_image_that_is_liked_better_than_json_is_the_answer(
    http: httpx.Client,
    worker: TestWorker,
    accept: str,
    fields: dict[str, object],
    output_format: str,
) -> None:
    response = post(http, accept, seed=7, **fields)
    assert response.status_code == 200
    assert response.content == PNG
    assert response.headers["content-type"] == f"image/{output_format}"
    assert response.headers["x-seed"] == "7"
    [job] = worker.jobs
    assert isinstance(job, ImageJob)
    assert job.output_format == output_format
    assert response.headers["x-job-id"] == job.id


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("accept", "fields"),
    [
        ("*/*", {}),
        ("application/json", {}),
        ("image/png, application/json", {}),
        ("image/png, */*", {}),
        ("image/png;q=0, */*", {}),
        ("application/json, image/png;q=0.5, */*;q=0.9", {}),
        ("application/json;q=0.9, */*", {"n": 2}),
        ("application/json;q=0", {}),
        ("text/html", {}),
        ("", {}),
        ("image/png, application/json;q=0.5", {"n": 2}),
        ("image/png, application/json;q=0.5", {"response_format": "url"}),
        ("image/png, application/json;q=0.5", {"output_format": "webp"}),
        (";;,=;q=, image/png;q=x, */*", {}),
    ],
)
def test_else_the_answer_is_json(
    http: httpx.Client, accept: str, fields: dict[str, object]
) -> None:
    response = post(http, accept, **fields)
    assert response.headers["content-type"] == "application/json"
    assert response.status_code == 200


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("accept", "fields", "allowed"),
    [
        ("image/gif", {}, "image/png, image/jpeg, image/webp, application/json"),
        ("image/png", {"output_format": "webp"}, "image/webp, application/json"),
        ("image/png", {"n": 2}, "application/json"),
        ("application/json;q=0, */*", {"n": 2}, "application/json"),
        ("image/png", {"response_format": "b64_json"}, "application/json"),
        ("image/png", {"stream": True}, "text/event-stream"),
    ],
)
def test_an_image_that_cannot_be_the_answer_is_a_406(
    http: httpx.Client, accept: str, fields: dict[str, object], allowed: str
) -> None:
    error = error_of(post(http, accept, **fields), 406)
    assert (error["param"], error["code"]) == ("Accept", "not_acceptable")
    assert error["message"] == f'Accept: got "{accept}"; allowed for this request: {allowed}'


def test_an_error_is_json_whatever_is_liked(http: httpx.Client) -> None:
    assert error_of(post(http, "image/png", size="1x1"), 400)["param"] == "size"


@pytest.mark.usefixtures("redis")
def test_an_asynchronous_answer_is_the_job_whatever_is_liked(http: httpx.Client) -> None:
    headers = {"accept": "image/jpeg", "prefer": "respond-async"}
    response = http.post(ROUTE, json={"prompt": "x"}, headers=headers)
    assert response.status_code == 202
    assert response.json()["status"] == "queued"
