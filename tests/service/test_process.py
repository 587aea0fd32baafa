"""The service as a process: `python -m service.main`."""

import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from redis import Redis

from service.main import create_app
from service.server import Server, prepare
from service.settings import ServiceSettings
from tests.service.conftest import error_of, wait_for
from worker.contract.jobs import Task
from worker.contract.record import queue_key


@pytest.fixture
def grace_s() -> int:
    return 0


@pytest.fixture
def process(redis_url: str, tmp_path: Path, grace_s: int) -> Iterator[subprocess.Popen[str]]:
    """Listening on a free port."""
    environment = {
        "TRIPTYCH_REDIS_URL": redis_url,
        "TRIPTYCH_DATA_DIR": str(tmp_path),
        "TRIPTYCH_PORT": "0",
        "TRIPTYCH_DRAIN_GRACE_S": str(grace_s),
    }
    command = [sys.executable, "-m", "service.main"]
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"running on (http://[0-9.:]+)", line):
            return found[1]
    raise AssertionError("the process ended before it listened")


def test_garbage_collections_pass_over_what_lives_as_long_as_the_process(
    settings: ServiceSettings,
) -> None:
    prepare(app := create_app(settings))
    assert len(gc.get_objects()) < gc.get_freeze_count() / 100
    assert app.openapi_schema is not None


def test_an_idle_connection_outlasts_the_clients_patience(settings: ServiceSettings) -> None:
    """Or the server closes it under a request that is on its way."""
    patience_s = httpx.Limits().keepalive_expiry
    assert patience_s is not None
    assert Server(create_app(settings), settings).config.timeout_keep_alive > 2 * patience_s


def test_sigterm_answers_who_waits_and_exits_with_0(
    process: subprocess.Popen[str], redis: Redis
) -> None:
    route = f"{url_of(process)}/v1/embeddings"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.post, route, json={"input": "x"}, timeout=20)
        wait_for(lambda: redis.llen(queue_key(Task.EMBEDDINGS)) == 1)
        process.send_signal(signal.SIGTERM)
        error = error_of(waiting.result(timeout=20), 504)
    assert error["code"] == "sync_wait_timeout"
    assert str(error["job_id"]).startswith("job_")
    assert process.wait(timeout=20) == 0
    assert redis.llen(queue_key(Task.EMBEDDINGS)) == 1, "the job goes on"


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("grace_s", [600])
def test_sigterm_ends_the_streams_of_who_follows_without_the_grace(
    process: subprocess.Popen[str],
) -> None:
    with httpx.Client(base_url=url_of(process), timeout=20) as http:
        headers = {"prefer": "respond-async"}
        job = http.post("/v1/embeddings", json={"input": "x"}, headers=headers).json()
        with http.stream("GET", job["urls"]["events"]) as response:
            lines = response.iter_lines()
            assert "queued" in next(line for line in lines if line.startswith("event:"))
            process.send_signal(signal.SIGTERM)
            assert not any(line.startswith("event:") for line in lines)
    assert process.wait(timeout=20) == 0
