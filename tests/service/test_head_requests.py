"""HEAD, on every route that has a GET."""

import httpx
import pytest

ASYNC = {"prefer": "respond-async"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/v1/jobs/none"])
def test_it_answers_as_get_does_without_the_body(http: httpx.Client, path: str) -> None:
    head, get = http.head(path), http.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_of_a_stream_it_ends_at_once(http: httpx.Client) -> None:
    body = {"prompt": "a red circle"}
    job = http.post("/v1/images/generations", json=body, headers=ASYNC).json()  # no worker is there
    head = http.head(f"/v1/jobs/{job['id']}/events")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")


def test_a_route_without_a_get_refuses_it(http: httpx.Client) -> None:
    assert http.head("/v1/embeddings").status_code == 405
    assert http.delete("/healthz").headers["allow"] == "GET, HEAD"
