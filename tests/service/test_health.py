"""Alive, ready, measured."""

import logging
from dataclasses import replace

import httpx
import pytest
from redis import Redis

from service.main import create_app
from service.settings import ServiceSettings
from tests.cards import SHAPES, publish, status_of
from tests.claims import claim_one
from tests.exposition import samples_of
from tests.service.conftest import TestWorker, error_of, serve, wait_for
from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.records import Records
from worker.contract.workers import ModelState, ServedModel, WorkerState

ANEW = {"cache-control": "no-store"}  # no answer of an equal job's, and no share in its run
ASYNC = {"prefer": "respond-async", **ANEW}

MIDDLEWARE = "service.middleware"


def test_the_process_says_that_it_lives(http: httpx.Client) -> None:
    response = http.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_without_workers_it_is_not_ready_and_says_why(http: httpx.Client, redis: Redis) -> None:
    redis.flushall()
    workers.write(redis, status_of(Task.CLASSIFY, WorkerState.LOADING))
    workers.write(redis, status_of(Task.EMBEDDINGS, WorkerState.DRAINING))
    error = error_of(http.get("/readyz"), 503)
    assert error["code"] == "no_workers"
    assert error["message"] == (
        "images: no living worker; classify: loading on cpu; embeddings: draining on cpu"
    )


def test_while_models_load_it_is_not_ready(http: httpx.Client, redis: Redis) -> None:
    for task in Task:
        workers.write(redis, status_of(task, WorkerState.LOADING))
    assert error_of(http.get("/readyz"), 503)["code"] == "model_loading"


def test_a_worker_none_of_whose_models_loads_is_not_ready(http: httpx.Client, redis: Redis) -> None:
    failed = (ServedModel(name="broken", state=ModelState.FAILED),)
    workers.write(redis, status_of(Task.CLASSIFY, WorkerState.LOADING, failed))
    error = error_of(http.get("/readyz"), 503)
    assert (error["code"], error["message"]) == (
        "no_workers",
        "classify: no model could be loaded on cpu",
    )


def test_with_a_warm_worker_for_each_task_it_is_ready(http: httpx.Client, redis: Redis) -> None:
    for task, state in zip(Task, (WorkerState.IDLE, WorkerState.BUSY, WorkerState.IDLE)):  # noqa: B905
        workers.write(redis, status_of(task, state))
    response = http.get("/readyz")
    assert response.status_code == 200
    assert response.json()["status"] == "ready"
    assert response.json()["tasks"] == ["images", "classify", "embeddings"]


def test_readiness_tells_the_workers_apart_and_asks_for_one_of_a_task(
    settings: ServiceSettings, redis: Redis
) -> None:
    redis.flushall()
    states = {"cuda:0": WorkerState.BUSY, "cuda:1": WorkerState.LOADING}
    for i, (device, state) in enumerate(states.items()):
        status = status_of(Task.IMAGES, state, name=f"images-{i}")
        workers.write(redis, replace(status, device=device))
    told = {"tasks": frozenset({Task.IMAGES})}
    with serve(create_app(settings.model_copy(update=told))) as url:
        assert httpx.get(f"{url}/readyz").json()["workers"] == [
            {"name": "images-0", "task": "images", "device": "cuda:0", "state": "busy"},
            {"name": "images-1", "task": "images", "device": "cuda:1", "state": "loading"},
        ]
        workers.remove(redis, "images-0")
        error = error_of(httpx.get(f"{url}/readyz"), 503)
    assert (error["code"], error["message"]) == ("model_loading", "images: loading on cuda:1")


def test_a_task_whose_workers_fail_and_load_says_both(http: httpx.Client, redis: Redis) -> None:
    redis.flushall()
    publish(redis, *SHAPES[1:])
    failed = (ServedModel(name="broken", state=ModelState.FAILED),)
    for i, models in enumerate((failed, (), ())):
        status = status_of(Task.IMAGES, WorkerState.LOADING, models, name=f"images-{i}")
        workers.write(redis, replace(status, device=f"cuda:{i}"))
    error = error_of(http.get("/readyz"), 503)
    assert error["code"] == "model_loading"
    assert error["message"] == (
        "images: no model could be loaded on cuda:0, loading on cuda:1 and cuda:2"
    )


def test_a_task_without_a_model_needs_no_worker_to_be_ready(
    settings: ServiceSettings, redis: Redis
) -> None:
    workers.write(redis, status_of(Task.IMAGES, WorkerState.IDLE))
    told = {"tasks": frozenset({Task.IMAGES})}
    with serve(create_app(settings.model_copy(update=told))) as url:
        assert httpx.get(f"{url}/readyz").json()["tasks"] == ["images"]


def test_the_tasks_of_the_workers_count_where_none_are_told(
    settings: ServiceSettings, redis: Redis
) -> None:
    with serve(create_app(settings.model_copy(update={"tasks": frozenset()}))) as url:
        assert len(httpx.get(f"{url}/readyz").json()["tasks"]) == 3
        redis.flushall()
        assert error_of(httpx.get(f"{url}/readyz"), 503)["message"] == "no living worker"
        workers.write(redis, status_of(Task.CLASSIFY, WorkerState.IDLE))
        assert httpx.get(f"{url}/readyz").json()["tasks"] == ["classify"]


def test_the_metrics_tell_the_truth_about_queues_and_workers(
    http: httpx.Client, redis: Redis
) -> None:
    for _ in range(2):
        http.post("/v1/embeddings", json={"input": "x"}, headers=ASYNC)
    assert claim_one(Records(redis), Task.EMBEDDINGS) is not None
    workers.write(redis, status_of(Task.IMAGES, WorkerState.BUSY))
    values = samples_of(http.get("/metrics").text)
    assert values["triptych_redis_up{}"] == 1
    assert values["triptych_redis_writable{}"] == 1
    assert values["triptych_queue_depth{task=embeddings}"] == 1
    assert values["triptych_queue_depth{task=images}"] == 0
    assert 0 < values["triptych_queue_oldest_job_age_seconds{task=embeddings}"] < 60
    assert values["triptych_jobs_in_state{state=running,task=embeddings}"] == 1
    assert values["triptych_workers{state=busy,task=images}"] == 1
    assert values["triptych_workers{state=idle,task=images}"] == 0
    assert values["triptych_worker_heartbeat_timestamp_seconds{worker=images-0}"] > 0


def test_the_metrics_count_requests_by_route_and_status(
    settings: ServiceSettings, worker: TestWorker
) -> None:
    with serve(create_app(settings)) as url, httpx.Client(base_url=url) as http:
        http.post("/v1/embeddings", json={"input": "x"})
        http.post("/v1/embeddings", json={"input": "x"}, headers={"prefer": "wait=0", **ANEW})
        http.get("/v1/jobs/job_x")
        http.get("/v2/nothing")
        http.request("PROPFIND", "/v1/embeddings")
        values = samples_of(http.get("/metrics").text)
    requests = "triptych_http_requests_total"
    assert values[f"{requests}{{method=POST,route=/v1/embeddings,status=200}}"] >= 1
    assert values[f"{requests}{{method=GET,route=/v1/jobs/{{job_id}},status=404}}"] == 1
    assert values[f"{requests}{{method=other,route=other,status=404}}"] == 1
    assert values[f"{requests}{{method=other,route=/v1/embeddings,status=405}}"] == 1
    assert values["triptych_http_requests_in_flight{}"] == 1
    assert values["triptych_jobs_enqueued_total{model=f_net_shapes,task=embeddings}"] == 2
    assert values["triptych_http_response_bytes_total{route=/v1/embeddings}"] > 100
    assert "triptych_sync_wait_timeouts_total{task=embeddings}" in values
    assert worker.jobs


@pytest.mark.usefixtures("redis")
def test_how_long_a_job_was_followed_is_no_duration_of_a_request(settings: ServiceSettings) -> None:
    with serve(create_app(settings)) as url, httpx.Client(base_url=url) as http:
        urls = http.post("/v1/embeddings", json={"input": "x"}, headers=ASYNC).json()["urls"]
        with http.stream("GET", urls["events"]) as response:
            httpx.post(f"{url}{urls['cancel']}")
            response.read()
        values = samples_of(http.get("/metrics").text)
    label = "method=GET,route=/v1/jobs/{job_id}/events"
    assert values[f"triptych_http_requests_total{{{label},status=200}}"] == 1
    assert values[f"triptych_http_request_duration_seconds_count{{{label}}}"] == 0


@pytest.mark.usefixtures("redis")
def test_the_metrics_count_refusals(settings: ServiceSettings) -> None:
    app = create_app(settings.model_copy(update={"max_queue_depth": 1}))
    with serve(app) as url, httpx.Client(base_url=url) as http:
        for _ in range(3):
            http.post("/v1/embeddings", json={"input": "x"}, headers=ASYNC)
        values = samples_of(http.get("/metrics").text)
    refused = "triptych_admission_rejections_total{reason=queue_full,task=embeddings}"
    assert values[refused] == 2


def test_without_redis_the_metrics_say_so(settings: ServiceSettings) -> None:
    app = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    with serve(app) as url:
        values = samples_of(httpx.get(f"{url}/metrics").text)
    assert values["triptych_redis_up{}"] == 0
    assert not [name for name in values if name.startswith("triptych_queue")]


def test_probes_do_not_fill_the_log(
    http: httpx.Client, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, MIDDLEWARE)
    redis.flushall()  # not ready: a probe's 503 is no news either
    for path in ("/healthz", "/readyz", "/metrics", "/v2/nothing"):
        http.get(path)

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == MIDDLEWARE]

    wait_for(lambda: bool(lines()))
    assert [line.split()[2] for line in lines()] == ["route=other"]
