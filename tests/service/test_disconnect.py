"""A client that leaves: its job is not run for nobody, and nobody else's job is touched."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from redis import Redis

from service import job_changes, job_client
from service.job_client import JobClient
from service.main import create_app
from service.server import Server
from service.settings import ServiceSettings
from tests.service.conftest import TestWorker, in_a_thread, wait_for
from tests.service.test_sharing import Gate, is_reused, num_sharers
from worker.contract.jobs import EmbeddingsJob, JobState, Task
from worker.contract.record import record_key, waiting_key
from worker.contract.records import FINISHED_CHANNEL, Records

READ = "/v1/embeddings"


@pytest.fixture
def gate(worker: TestWorker) -> Iterator[Gate]:
    gate = Gate(worker)
    yield gate
    gate.open()


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis)


def request(text: str, prefer: str = "") -> bytes:
    body = json.dumps({"input": text}).encode()
    head = (
        f"POST {READ} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"prefer: {prefer}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 80)) as client:
        client.settimeout(20)
        yield client


def is_running(worker: TestWorker, text: str) -> bool:
    return any(isinstance(job, EmbeddingsJob) and job.texts == (text,) for job in worker.jobs)


def id_of(worker: TestWorker, text: str) -> str:
    wait_for(lambda: is_running(worker, text))
    jobs = (job for job in worker.jobs if isinstance(job, EmbeddingsJob) and job.texts == (text,))
    return next(jobs).id


def is_canceled(records: Records, job_id: str) -> bool:
    record = records.get(job_id)
    assert record is not None
    return record.is_cancel_requested


def num_waiting(redis: Redis) -> int:
    return redis.zcard(waiting_key(Task.EMBEDDINGS))


@pytest.mark.usefixtures("gate")
def test_the_worker_is_asked_to_stop_the_job_of_a_client_that_has_left(
    service_url: str, worker: TestWorker, records: Records
) -> None:
    with connected(service_url) as client:
        client.sendall(request("a"))
        job_id = id_of(worker, "a")
        assert not is_canceled(records, job_id)
    wait_for(lambda: is_canceled(records, job_id))


def test_the_jobs_of_clients_that_have_left_do_not_stand_before_the_next(
    service_url: str, http: httpx.Client, redis: Redis, worker: TestWorker, gate: Gate
) -> None:
    with connected(service_url) as busy:
        busy.sendall(request("busy"))
        id_of(worker, "busy")
        for number in range(6):
            with connected(service_url) as client:
                client.sendall(request(f"left {number}"))
                wait_for(lambda: num_waiting(redis) == 1)
            wait_for(lambda: num_waiting(redis) == 0)
        gate.open()
        answer = http.post(READ, json={"input": "next"})
    assert answer.status_code == 200
    assert len(worker.jobs) == 2


def test_a_client_that_leaves_while_another_shares_the_run_does_not_stop_it(
    service_url: str, http: httpx.Client, redis: Redis, worker: TestWorker, gate: Gate
) -> None:
    answers: list[httpx.Response] = []
    with connected(service_url) as client:
        client.sendall(request("a"))
        job_id = id_of(worker, "a")
        other = threading.Thread(
            target=lambda: answers.append(http.post(READ, json={"input": "a"}))
        )
        other.start()
        wait_for(lambda: num_sharers(redis) == 1)
    wait_for(lambda: http.get(f"/v1/jobs/{job_id}").json()["status"] == "canceled")
    gate.open()
    other.join()
    assert (answers[0].status_code, is_reused(answers[0])) == (200, "shared")
    assert len(worker.jobs) == 1


@pytest.mark.usefixtures("gate")
def test_a_client_is_watched_though_its_wait_was_disturbed_at_once(
    service_url: str,
    redis: Redis,
    worker: TestWorker,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_client, "_UNWATCHED_S", 9.0)
    with connected(service_url) as client:
        client.sendall(request("a"))
        job_id = id_of(worker, "a")
        redis.publish(FINISHED_CHANNEL, job_id)
    wait_for(lambda: is_canceled(records, job_id))


@pytest.mark.usefixtures("gate")
def test_a_run_stops_when_all_its_clients_have_left(
    service_url: str, redis: Redis, worker: TestWorker, records: Records
) -> None:
    with connected(service_url) as first:
        first.sendall(request("a"))
        job_id = id_of(worker, "a")
        with connected(service_url) as second:
            second.sendall(request("a"))
            wait_for(lambda: num_sharers(redis) == 1)
        wait_for(lambda: num_sharers(redis) == 0)
        assert not is_canceled(records, job_id)
    wait_for(lambda: is_canceled(records, job_id))


@pytest.mark.usefixtures("gate")
@pytest.mark.parametrize("prefer", ["respond-async, wait=20", "wait=0"])
def test_a_job_that_its_client_may_come_back_for_goes_on(
    service_url: str, redis: Redis, worker: TestWorker, records: Records, prefer: str
) -> None:
    with connected(service_url) as client:
        client.sendall(request("a", prefer))
        job_id = id_of(worker, "a")
        if prefer == "wait=0":
            assert client.recv(1000).startswith(b"HTTP/1.1 504")
    leave_and_be_missed(service_url, redis)
    assert not is_canceled(records, job_id)


def leave_and_be_missed(url: str, redis: Redis) -> None:
    """Wait for as long as a service takes to see that a client has left."""
    with connected(url) as witness:
        witness.sendall(request("witness"))
        wait_for(lambda: num_waiting(redis) == 1)
    wait_for(lambda: num_waiting(redis) == 0)


def test_a_client_that_keeps_its_connection_or_sends_ahead_has_not_left(
    service_url: str, redis: Redis, worker: TestWorker, gate: Gate
) -> None:
    with connected(service_url) as client:
        client.sendall(request("a") + request("b"))
        id_of(worker, "a")
        leave_and_be_missed(service_url, redis)
        gate.open()
        received = b""
        while received.count(b'"object":"list"') < 2:
            received += client.recv(100_000)
        client.sendall(request("c"))
        while received.count(b'"object":"list"') < 3:
            received += client.recv(100_000)
    assert received.count(b"HTTP/1.1 200") == 3


def test_who_left_is_logged_and_counted_as_such(
    service_url: str, http: httpx.Client, redis: Redis, worker: TestWorker, gate: Gate
) -> None:
    def counts() -> list[float]:
        lines = [line.split() for line in http.get("/metrics").text.splitlines()]
        return [
            float(value)
            for name in (
                'triptych_client_disconnects_total{task="embeddings"}',
                f'triptych_http_requests_total{{method="POST",route="{READ}",status="499"}}',
            )
            for *_, value in [line for line in lines if line[0] == name]
        ]

    with connected(service_url) as busy:
        busy.sendall(request("busy"))
        id_of(worker, "busy")
        leave_and_be_missed(service_url, redis)
        before = counts()
        leave_and_be_missed(service_url, redis)
        wait_for(lambda: counts() == [count + 1 for count in before])
        gate.open()


@contextmanager
def own_server(settings: ServiceSettings, drain_grace_s: int) -> Iterator[tuple[Server, str]]:
    """A service that is to be stopped, and its address; it has stopped at the end."""
    own = settings.model_copy(update={"port": 0, "drain_grace_s": drain_grace_s})
    server = Server(create_app(own), own)
    with in_a_thread(server, None):
        yield server, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


def test_a_service_that_stops_cancels_nothing(
    settings: ServiceSettings, redis: Redis, worker: TestWorker, records: Records, gate: Gate
) -> None:
    with own_server(settings, drain_grace_s=0) as (server, url), connected(url) as client:
        client.sendall(request("a"))
        job_id = id_of(worker, "a")
        server.should_exit = True
        assert client.recv(1000).startswith(b"HTTP/1.1 504")
    gate.open()
    wait_for(lambda: record_is(records, job_id, JobState.SUCCEEDED))
    assert redis.ttl(record_key(job_id)) > 80_000, "its client was told to come back for it"


@pytest.mark.usefixtures("gate")
def test_the_job_of_a_client_that_leaves_while_the_service_stops_is_canceled(
    settings: ServiceSettings,
    redis: Redis,
    worker: TestWorker,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = threading.Event()

    def stop_waiting_once_it_left(jobs: JobClient) -> None:
        assert left.wait(20)
        stop_waiting(jobs)

    stop_waiting = JobClient.stop_waiting
    monkeypatch.setattr(JobClient, "stop_waiting", stop_waiting_once_it_left)
    monkeypatch.setattr(job_changes, "_PAUSE_S", 60)  # after the first change
    with own_server(settings, drain_grace_s=0) as (server, url):
        with connected(url) as client:
            client.sendall(request("first"))
            first_id = id_of(worker, "first")
        wait_for(lambda: is_canceled(records, first_id))
        with connected(url) as client:
            client.sendall(request("a"))
            wait_for(lambda: num_waiting(redis) == 1)
            server.should_exit = True
        left.set()
    assert num_waiting(redis) == 0


def record_is(records: Records, job_id: str, state: JobState) -> bool:
    record = records.get(job_id)
    return record is not None and record.state is state
