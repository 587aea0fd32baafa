"""`Idempotency-Key`: what is sent again is worked for once, at any process, and answered alike."""

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.bursts import BurstLimiter
from service.job_changes import JobChanges
from service.job_client import JobClient
from service.main import create_app
from service.redis_health import RedisHealth
from service.round_trips import RoundTrips
from service.settings import ServiceSettings
from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of, serve, wait_for
from tests.service.test_disconnect import connected
from tests.service.test_sharing import Gate
from tests.worker.jobs import embeddings_job
from worker.contract.jobs import Failure, FailureCode, JobState
from worker.contract.record import Scalar, record_key
from worker.contract.record_scripts import SUBMIT
from worker.contract.records import Records
from worker.contract.submission import IdempotencyKey, Terms

PAINT, SEE, READ, JOBS = (
    *("/v1/images/generations", "/v1/classify", "/v1/embeddings"),
    "/v1/jobs",
)
BODIES: Mapping[str, dict[str, object]] = {
    PAINT: {"prompt": "a red circle", "n": 2},
    SEE: {"input": PNG_BASE64},
    READ: {"input": "a red circle"},
    JOBS: {"type": "text.embedding", "input": {"input": "a red circle"}},
}
KEY = {"idempotency-key": "key-1"}
# Equal requests would share their work without any key.
FRESH = {**KEY, "cache-control": "no-cache"}


@pytest.fixture
def gate(worker: TestWorker) -> Iterator[Gate]:
    gate = Gate(worker)
    yield gate
    gate.open()


@pytest.fixture
def other_http(settings: ServiceSettings, http: httpx.Client) -> Iterator[httpx.Client]:  # noqa: ARG001
    """A client of another process of the same service, as far as they differ."""
    with serve(create_app(settings)) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


def post(http: httpx.Client, path: str = READ, **headers: str) -> httpx.Response:
    return http.post(path, json=BODIES[path], headers={**FRESH, **headers})


def is_replayed(response: httpx.Response) -> bool:
    return bool(response.headers.get("idempotency-replayed") == "true")


@pytest.mark.parametrize("path", [PAINT, SEE, READ])
def test_a_request_that_comes_again_gets_the_same_answer(
    http: httpx.Client, worker: TestWorker, path: str
) -> None:
    first, second = post(http, path), post(http, path)
    assert (first.status_code, is_replayed(first)) == (200, False)
    assert (second.status_code, is_replayed(second)) == (200, True)
    assert second.content == first.content
    assert second.headers["x-job-id"] == first.json()["id"]
    assert len(worker.jobs) == 1


def test_a_failure_is_answered_again_too(http: httpx.Client, worker: TestWorker) -> None:
    failure = Failure(code=FailureCode.GPU_OOM, message="it broke")
    worker.answer = lambda _job, _attempt: failure
    first, second = post(http), post(http)
    assert error_of(first, 500) == error_of(second, 500)
    assert [is_replayed(first), is_replayed(second)] == [False, True]
    assert {r.headers["x-should-retry"] for r in (first, second)} == {"false"}
    assert len(worker.jobs) == 1


def test_who_comes_again_meanwhile_waits_for_the_same_job_at_another_process_too(
    http: httpx.Client, other_http: httpx.Client, worker: TestWorker, gate: Gate
) -> None:
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(post, http)
        wait_for(lambda: len(worker.jobs) == 1)
        again = [pool.submit(post, client) for client in (http, http, other_http)]
        wait_for(lambda: num_waiters(worker) == 4)
        gate.open()
        answers = [answer.result(20) for answer in (first, *again)]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert [is_replayed(answer) for answer in answers] == [False, True, True, True]
    assert len(worker.jobs) == 1


def num_waiters(worker: TestWorker) -> int:
    """How many wait for the first job."""
    waiters = worker.redis.hget(record_key(worker.jobs[0].id), "waiters")
    return 0 if waiters is None else len(waiters.split())


def test_another_request_with_the_key_is_refused(http: httpx.Client, worker: TestWorker) -> None:
    post(http)
    response = http.post(READ, json={"input": "a blue circle"}, headers=FRESH)
    error = error_of(response, 422)
    assert (error["code"], error["param"]) == ("idempotency_key_reused", "Idempotency-Key")
    assert len(worker.jobs) == 1


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON; boundary=x"])
@pytest.mark.usefixtures("worker")
def test_json_counts_as_it_means(http: httpx.Client, media_type: str) -> None:
    headers = {**FRESH, "content-type": media_type}
    texts = ['{"input": "x", "user": "u"}', '{ "user":"u","input":"\\u0078" }']
    first, second = (http.post(READ, content=text, headers=headers) for text in texts)
    assert second.content == first.content


@pytest.mark.usefixtures("worker")
def test_long_json_counts_byte_for_byte(http: httpx.Client) -> None:
    """To parse megabytes of numbers once more takes seconds, in which nobody else is served."""
    headers = {**FRESH, "content-type": "application/json"}
    text, spaces = '{"input": "x", "user": null}', " " * 2**16
    texts = [text + spaces, text + spaces, spaces + text]
    answers = [http.post(READ, content=each, headers=headers) for each in texts]
    assert [answer.status_code for answer in answers] == [200, 200, 422]
    assert answers[1].content == answers[0].content


@pytest.mark.usefixtures("worker")
def test_a_form_counts_by_what_is_in_it(http: httpx.Client) -> None:
    def send(content: bytes, top_k: int) -> httpx.Response:
        files, fields = {"file": ("a.png", content)}, {"top_k": str(top_k)}
        return http.post(SEE, headers=FRESH, files=files, data=fields)

    answers = [send(PNG, 2), send(PNG, 2), send(PNG, 3), send(PNG + b"x", 2)]
    assert [answer.status_code for answer in answers] == [200, 200, 422, 422]
    assert answers[1].content == answers[0].content


@pytest.mark.usefixtures("worker")
def test_an_image_as_the_body_counts_with_its_query(http: httpx.Client) -> None:
    headers = {**FRESH, "content-type": "image/png"}
    paths = [f"{SEE}?top_k=2", f"{SEE}?top_k=2", f"{SEE}?top_k=3"]
    statuses = [http.post(path, content=PNG, headers=headers).status_code for path in paths]
    assert statuses == [200, 200, 422]


@pytest.mark.usefixtures("worker")
def test_a_key_is_its_routes_and_its_callers(service_url: str, http: httpx.Client) -> None:
    post(http)
    assert not is_replayed(post(http, SEE))
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=service_url, transport=transport) as stranger:
        assert not is_replayed(post(stranger))


@pytest.mark.parametrize(
    "keys", [[""], ["a b"], ["x" * 256], ["k\u00e9y"], ["one", "two"]], ids=str
)
def test_a_key_that_is_none_is_refused(http: httpx.Client, keys: list[str]) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1")) for key in keys]
    error = error_of(http.post(READ, json=BODIES[READ], headers=headers), 400)
    assert error["param"] == "Idempotency-Key"
    assert "allowed: one, of 1 to 255 visible ASCII characters" in str(error["message"])


def test_a_request_that_is_refused_leaves_its_key_free(
    http: httpx.Client, redis: Redis, worker: TestWorker
) -> None:
    assert http.post(READ, json={"input": ""}, headers=KEY).status_code == 400
    assert redis.keys("triptych:idempotency:*") == []
    assert not is_replayed(post(http))
    assert len(worker.jobs) == 1


def test_who_will_come_back_gets_the_same_job(http: httpx.Client, worker: TestWorker) -> None:
    later = {"prefer": "respond-async"}
    first, second = post(http, **later), post(http, **later)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["location"] == first.headers["location"]
    assert is_replayed(second)
    assert post(http).json()["id"] == first.json()["id"]
    assert len(worker.jobs) == 1


def test_a_job_of_its_own_route_is_made_once(http: httpx.Client, worker: TestWorker) -> None:
    first, second = post(http, JOBS), post(http, JOBS)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    wait_for(lambda: len(worker.jobs) == 1)


def test_a_stream_that_comes_again_brings_the_same_images(
    http: httpx.Client, worker: TestWorker
) -> None:
    body = {**BODIES[PAINT], "stream": True}
    first, second = (http.post(PAINT, json=body, headers=FRESH) for _ in range(2))
    assert first.text.count("event: image_generation.completed") == 2
    assert [is_replayed(first), is_replayed(second)] == [False, True]
    assert completed(second) == completed(first)
    assert len(worker.jobs) == 1


def completed(stream: httpx.Response) -> list[str]:
    return [frame for frame in stream.text.split("\n\n") if "image_generation.completed" in frame]


def request() -> bytes:
    body = b'{"input": "a red circle"}'
    head = (
        f"POST {READ} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"idempotency-key: key-1\r\ncache-control: no-cache\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def test_who_lost_its_connection_and_sends_again_is_worked_for(
    service_url: str, http: httpx.Client, worker: TestWorker, gate: Gate
) -> None:
    with connected(service_url) as client:
        client.sendall(request())
        wait_for(lambda: len(worker.jobs) == 1)
        first = worker.jobs[0].id
    wait_for(lambda: http.get(f"/v1/jobs/{first}").json()["status"] == "canceling")
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(post, http)
        wait_for(lambda: http.get("/v1/jobs?status=queued").json()["data"] != [])
        gate.open()
        answer = again.result(20)
    assert (answer.status_code, is_replayed(answer)) == (200, False)
    assert answer.json()["id"] != first


def test_who_leaves_takes_no_job_from_who_sent_the_key_as_well(
    service_url: str, http: httpx.Client, worker: TestWorker, gate: Gate
) -> None:
    answers: list[httpx.Response] = []
    with connected(service_url) as client:
        client.sendall(request())
        wait_for(lambda: len(worker.jobs) == 1)
        other = threading.Thread(target=lambda: answers.append(post(http)))
        other.start()
        wait_for(lambda: num_waiters(worker) == 2)
    wait_for(lambda: num_waiters(worker) == 1)
    gate.open()
    other.join()
    assert (answers[0].status_code, is_replayed(answers[0])) == (200, True)


def test_a_request_that_was_not_told_that_it_was_attached_leaves_its_job(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = Terms(key=IdempotencyKey("d1" * 32, "a1" * 32), is_awaited=True, ttl_s=3600)
    first, second = embeddings_job("a"), embeddings_job("a")
    run_script = RoundTrips.run_script

    async def lose_the_reply(self: RoundTrips, script: str, args: Sequence[Scalar]) -> object:
        reply = await run_script(self, script, args)
        if second.id in args and script == SUBMIT:
            raise RedisTimeoutError
        return reply

    async def submit_both_and_leave() -> None:
        async with AsyncRedis.from_url(redis_url, decode_responses=True) as client:
            health, round_trips = RedisHealth(client), RoundTrips(client)
            changes = JobChanges(round_trips, health, 3600)
            jobs = JobClient(client, round_trips, health, changes, BurstLimiter(), 3600)
            await jobs.submit(first, terms)
            with pytest.raises(RedisTimeoutError):
                await jobs.submit(second, terms)
            changes.leave(first.id, first.id)
            await changes.send()

    monkeypatch.setattr(RoundTrips, "run_script", lose_the_reply)
    asyncio.run(submit_both_and_leave())
    record = Records(redis).get(first.id)
    assert record is not None
    assert record.state is JobState.CANCELED


def test_a_start_image_is_stored_for_the_job_alone(http: httpx.Client, worker: TestWorker) -> None:
    def with_files() -> set[str]:
        return {file.job_id for file in worker.image_files.walk_start_images()}

    body = {"prompt": "a red circle", "image": PNG_BASE64}
    before = with_files()
    worker.answer = lambda _job, _attempt: None
    for _ in range(2):
        http.post(PAINT, json=body, headers={**FRESH, "prefer": "respond-async"})
    wait_for(lambda: len(worker.jobs) == 1)
    assert with_files() - before == {worker.jobs[0].id}
