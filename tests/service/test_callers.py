"""Who shares the devices with others, and how urgently: what a job says of its client."""

import json
from collections.abc import Callable

import httpx
import pytest
from fastapi import Request

from service.dependencies import caller_of
from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of, wait_for

IMAGES, CLASSIFY, EMBEDDINGS = "/v1/images/generations", "/v1/classify", "/v1/embeddings"
BODIES = [
    (IMAGES, {"prompt": "x"}),
    (CLASSIFY, {"input": PNG_BASE64}),
    (EMBEDDINGS, {"input": "x"}),
]

ANEW = {"cache-control": "no-store"}  # no answer of an equal job's


def caller(host: str | None) -> str:
    return caller_of(Request({"type": "http", "client": None if host is None else (host, 1)}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_one_clients_addresses_are_one_caller(one: str, other: str) -> None:
    assert caller(one) == caller(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8:0:1::1", "2001:db8:0:2::1"),
        ("unknown", "192.0.2.1"),
    ],
)
def test_other_clients_are_other_callers(one: str, other: str) -> None:
    assert caller(one) != caller(other)


def test_a_caller_is_short_and_does_not_show_the_address() -> None:
    assert len(caller("2001:db8::1")) == len(caller("192.0.2.1")) == 16
    assert caller(None) == ""


def test_a_job_has_the_caller_that_a_trusted_proxy_names(
    http: httpx.Client, worker: TestWorker
) -> None:
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        headers = {"x-forwarded-for": address, **ANEW}
        http.post(EMBEDDINGS, json={"input": "x"}, headers=headers).raise_for_status()
    first, second, third = (job.caller for job in worker.jobs)
    assert first == third != second
    assert first == caller("192.0.2.1")


def test_a_callers_address_never_reaches_the_log(
    http: httpx.Client, worker: TestWorker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", logger="service"):
        headers = {"x-forwarded-for": "192.0.2.1"}
        http.post(EMBEDDINGS, json={"input": "x"}, headers=headers).raise_for_status()
        wait_for(lambda: "event=request" in caplog.text)  # it comes after the answer
    # uvicorn's own access log is off, but where pytest listens to it
    said = [each.getMessage() for each in caplog.records if each.name != "uvicorn.access"]
    assert "192.0.2.1" not in "\n".join(said)
    assert worker.jobs[0].caller not in "\n".join(said)


def as_json(http: httpx.Client, route: str, body: dict[str, str]) -> httpx.Response:
    return http.post(route, json=body, headers=ANEW)


def as_form(http: httpx.Client, route: str, body: dict[str, str]) -> httpx.Response:
    fields = {name: value for name, value in body.items() if name != "input"}
    return http.post(route, data=fields, files={"file": PNG}, headers=ANEW)


Post = Callable[[httpx.Client, str, dict[str, str]], httpx.Response]
POSTS = [(as_json, route, body) for route, body in BODIES] + [(as_form, CLASSIFY, {})]
IDS = ["images", "classify", "embeddings", "classify, as a form"]


@pytest.mark.parametrize(("post", "route", "body"), POSTS, ids=IDS)
def test_a_job_has_the_priority_that_was_asked_for(
    http: httpx.Client, worker: TestWorker, post: Post, route: str, body: dict[str, str]
) -> None:
    for priority in ("high", "normal", "low"):
        post(http, route, {**body, "priority": priority}).raise_for_status()
    post(http, route, body).raise_for_status()
    assert [job.priority for job in worker.jobs] == ["high", "normal", "low", "normal"]


@pytest.mark.parametrize(("post", "route", "body"), POSTS, ids=IDS)
def test_another_priority_is_refused(
    http: httpx.Client, post: Post, route: str, body: dict[str, str]
) -> None:
    error = error_of(post(http, route, {**body, "priority": "urgent"}), 400)
    assert error["param"] == "priority"
    message = """priority: should be 'high', 'normal' or 'low'; got "urgent\""""
    assert error["message"] == message


@pytest.mark.usefixtures("worker")
def test_a_job_shows_its_priority(http: httpx.Client) -> None:
    body, headers = {"input": "x", "priority": "low"}, {"prefer": "respond-async"}
    assert http.post(EMBEDDINGS, json=body, headers=headers).json()["priority"] == "low"


def test_the_priority_null_is_normal(http: httpx.Client, worker: TestWorker) -> None:
    content = json.dumps({"input": "x", "priority": None})
    headers = {"content-type": "application/json"}
    http.post(EMBEDDINGS, content=content, headers=headers).raise_for_status()
    assert worker.jobs[0].priority == "normal"
