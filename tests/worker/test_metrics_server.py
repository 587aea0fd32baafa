"""The worker's own port."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from tests.worker.conftest import free_port
from worker import metrics_server
from worker.metrics_server import MetricsServer


class Pulse:
    is_fresh = True


@pytest.fixture(scope="module")
def pulse() -> Pulse:
    return Pulse()


@pytest.fixture(scope="module")  # a server takes half a second to close
def http(pulse: Pulse) -> Iterator[httpx.Client]:
    registry = CollectorRegistry()
    Counter("triptych_things", "Things.", registry=registry).inc()
    port = free_port()
    server = MetricsServer("127.0.0.1", port, registry, lambda: pulse.is_fresh)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    server.close()


def test_it_answers_a_scrape_in_the_format_that_is_asked_for(http: httpx.Client) -> None:
    plain = http.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    strict = http.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert strict.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    for answer in (plain, strict):
        assert "triptych_things_total 1.0" in answer.text


def test_it_is_healthy_as_long_as_the_heartbeat_is_fresh(http: httpx.Client, pulse: Pulse) -> None:
    assert http.get("/healthz").status_code == 200
    pulse.is_fresh = False
    assert http.get("/healthz").status_code == 503
    pulse.is_fresh = True


def test_a_client_that_says_nothing_keeps_no_thread(
    monkeypatch: pytest.MonkeyPatch, http: httpx.Client
) -> None:
    assert metrics_server._QuietHandler.timeout <= 60
    monkeypatch.setattr(metrics_server._QuietHandler, "timeout", 0.01)
    with socket.create_connection(("127.0.0.1", http.base_url.port or 0), timeout=20) as silent:
        assert silent.recv(1) == b"", "the server closes it"


@pytest.mark.parametrize("path", ["/", "/readyz", "/metrics/", "/metrics2", "/v1/models"])
def test_there_is_nothing_else(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404
