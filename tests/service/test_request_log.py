"""The log of requests: what went wrong; a good answer is worth no line."""

import logging

import httpx
import pytest

from tests.service.conftest import TestWorker, wait_for
from worker.contract.jobs import Failure, FailureCode

EMBEDDINGS = "/v1/embeddings"


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == "service.middleware"
    ]


def only_line(caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    wait_for(lambda: bool(lines(caplog)))  # it comes after the answer
    [line] = lines(caplog)
    return line


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="service")


@pytest.mark.usefixtures("worker")
def test_good_answers_have_no_line(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    location = f"/v1/jobs/{http.post(EMBEDDINGS, json={'input': 'x'}).json()['id']}"
    for _ in range(5):
        assert http.get(location).status_code == 200
    assert lines(caplog) == []


def test_a_clients_mistake_has_one(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    http.post(EMBEDDINGS, json={})
    level, text = only_line(caplog)
    assert level == logging.INFO
    assert "status=400" in text


def test_a_failure_of_ours_has_a_warning(
    http: httpx.Client, worker: TestWorker, caplog: pytest.LogCaptureFixture
) -> None:
    failure = Failure(code=FailureCode.INTERNAL, message="broken")
    worker.answer = lambda *_: failure
    http.post(EMBEDDINGS, json={"input": "x"})
    level, text = only_line(caplog)
    assert level == logging.WARNING
    assert "status=500" in text


def test_good_answers_can_be_asked_for(
    http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="service")
    http.get("/v1/models")
    wait_for(lambda: any("route=/v1/models status=200" in text for _, text in lines(caplog)))


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (("2", "600"), "retries=2 client_timeout_s=600"),
        (("0", "0.5"), "retries=0 client_timeout_s=0.5"),
        (("1 job=x", "9" * 17), "retries=- client_timeout_s=-"),
    ],
)
def test_it_says_how_often_openais_client_has_tried_and_how_long_it_waits(
    http: httpx.Client, caplog: pytest.LogCaptureFixture, sent: tuple[str, str], said: str
) -> None:
    names = ("x-stainless-retry-count", "x-stainless-read-timeout")
    http.post(EMBEDDINGS, json={}, headers=dict(zip(names, sent, strict=True)))
    _, text = only_line(caplog)
    assert text.endswith(said)
