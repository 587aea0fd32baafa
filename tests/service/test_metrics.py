"""What the API counts, and what a scrape costs."""

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from benchmarks.running_service import scratch_redis
from service.main import create_app
from service.metrics import Metrics
from service.queue_stats import QueueCollector
from service.settings import ServiceSettings
from tests.cards import card_of, publish, status_of
from tests.claims import claim_one
from tests.exposition import (
    assert_keeps_the_rules,
    exemplars_in,
    num_series,
    openmetrics_families,
    samples_in,
    samples_of,
)
from tests.service.conftest import TestWorker, serve, wait_for
from tests.worker.conftest import commands_of
from tests.worker.jobs import embeddings_job
from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.records import Records
from worker.contract.submission import enqueue
from worker.contract.workers import WorkerState

MOST_SERIES = 1500  # of a process that serves 20 models
MOST_COMMANDS = 20  # that a scrape sends to Redis
OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0"}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
JSON = {"content-type": "application/json"}
ASYNC = {"prefer": "respond-async", "cache-control": "no-store"}
CARDS = tuple(
    card_of(f"{task}-{i}", task)
    for task, num in ((Task.IMAGES, 7), (Task.CLASSIFY, 7), (Task.EMBEDDINGS, 6))
    for i in range(num)
)


@pytest.fixture
def api(settings: ServiceSettings, redis: Redis) -> Iterator[httpx.Client]:  # noqa: ARG001
    """An app of its own, whose counts begin at 0."""
    told = settings.model_copy(update={"max_body_bytes": 2048})
    with serve(create_app(told)) as url, httpx.Client(base_url=url, timeout=20) as http:
        yield http


@pytest.fixture
def quiet_redis() -> Iterator[Redis]:
    """A server of which no app that runs beside this test asks anything."""
    with scratch_redis() as server, Redis.from_url(server.connection_url) as client:
        yield client


def scrape(api: httpx.Client) -> dict[str, float]:
    return samples_of(api.get("/metrics").text)


def registry_of(redis: Redis) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(QueueCollector(redis))
    return registry


def test_with_20_models_the_api_has_fewer_series_than_it_may(quiet_redis: Redis) -> None:
    publish(quiet_redis, *CARDS)
    metrics = Metrics()
    metrics.expose(QueueCollector(quiet_redis))
    for path, operations in create_app(ServiceSettings()).openapi()["paths"].items():
        metrics.requests.note_retry(path)
        for method, operation in operations.items():
            for status in (*map(int, operation["responses"]), 499):
                metrics.requests.observe(path, method.upper(), status, 0.1, 100)
            metrics.requests.observe(path, "PROPFIND", 405, 0.1, 100)
    metrics.requests.observe(None, "GET", 404, 0.1, 100)
    for card in CARDS:
        metrics.jobs.enqueued.labels(card.task, card.name)
    assert num_series(metrics.registry) <= MOST_SERIES


def test_whatever_strangers_ask_for_there_is_one_series_of_it() -> None:
    metrics = Metrics()
    before = num_series(metrics.registry)
    for method in ("GET", "PUT", "DELETE", "PROPFIND", "X-1", "X-2"):
        metrics.requests.observe(None, method, 404, 0.1, 100)
        metrics.requests.observe("/v1/classify", method, 405, 0.1, 100)
    assert num_series(metrics.registry) == before + 2 + 2  # their number, and bytes by route
    assert len(metrics.requests._of_answers) == 2 * 4, "the methods that are none are one"


def test_the_names_keep_prometheus_rules_and_both_formats_parse(quiet_redis: Redis) -> None:
    publish(quiet_redis, *CARDS)
    metrics = Metrics()
    metrics.expose(QueueCollector(quiet_redis))
    metrics.requests.observe("/v1/classify", "POST", 200, 0.1, 100)
    assert_keeps_the_rules(metrics.registry)


def test_who_may_not_ask_redis_of_itself_is_told_of_the_queues(quiet_redis: Redis) -> None:
    enqueue(quiet_redis, embeddings_job("a"))
    quiet_redis.acl_setuser("default", commands=["-info"])
    values = samples_in(registry_of(quiet_redis))
    assert values["triptych_queue_depth{task=embeddings}"] == 1
    assert values["triptych_redis_up{}"] == 1
    assert not [name for name in values if name.startswith("triptych_redis_memory")]


def test_a_scrape_is_few_commands_however_many_workers_and_models_there_are(
    quiet_redis: Redis,
) -> None:
    publish(quiet_redis, *CARDS)
    for i in range(30):
        workers.write(quiet_redis, status_of(Task.IMAGES, WorkerState.IDLE, name=f"images-{i}"))
    collector = QueueCollector(quiet_redis)
    first, second = (commands_of(quiet_redis, lambda: list(collector.collect())) for _ in range(2))
    assert len(second) < len(first) <= MOST_COMMANDS  # the cards are read once


def test_a_scrape_tells_of_redis_itself(quiet_redis: Redis) -> None:
    values = samples_in(registry_of(quiet_redis))
    assert values["triptych_redis_memory_used_bytes{}"] > 0
    assert values["triptych_redis_connected_clients{}"] >= 1
    assert values["triptych_redis_evicted_keys_total{}"] == 0
    assert "triptych_redis_memory_max_bytes{}" not in values, "there is no limit"
    assert "triptych_redis_aof_write_ok{}" not in values, "there is no append-only file"
    quiet_redis.config_set("maxmemory", 10**9)
    quiet_redis.config_set("appendonly", "yes")
    values = samples_in(registry_of(quiet_redis))
    assert values["triptych_redis_memory_max_bytes{}"] == 10**9
    assert values["triptych_redis_aof_write_ok{}"] == 1
    quiet_redis.config_set("appendonly", "no")  # its rewrite would hold up the server's end


def test_a_full_redis_is_up_and_takes_no_writes(quiet_redis: Redis) -> None:
    quiet_redis.config_set("maxmemory", 1)
    values = samples_in(registry_of(quiet_redis))
    assert (values["triptych_redis_up{}"], values["triptych_redis_writable{}"]) == (1, 0)


def test_models_are_told_with_what_they_run_on(quiet_redis: Redis) -> None:
    publish(quiet_redis, CARDS[0], card_of("big", Task.CLASSIFY, dtype="bf16", device="cuda:1"))
    values = samples_in(registry_of(quiet_redis))
    assert [name for name in values if name.startswith("triptych_model_info")] == [
        "triptych_model_info{device=cuda:1,dtype=bf16,family=ViTBackbone,model=big,task=classify}",
        "triptych_model_info{device=cpu,dtype=float32,family=FluxBackbone,model=images-0,task=images}",
    ]


def test_a_job_that_cost_too_many_workers_is_told(quiet_redis: Redis) -> None:
    assert samples_in(registry_of(quiet_redis))["triptych_quarantined_jobs{}"] == 0
    records = Records(quiet_redis)
    lose_for_good(quiet_redis, records)
    assert samples_in(registry_of(quiet_redis))["triptych_quarantined_jobs{}"] == 1


def test_jobs_that_expire_as_they_wait_are_told_whoever_ends_them(quiet_redis: Redis) -> None:
    records, series = Records(quiet_redis), "triptych_queue_expired_jobs_total{task=embeddings}"
    assert samples_in(registry_of(quiet_redis))[series] == 0
    late = records.now() - 1
    enqueue(quiet_redis, embeddings_job("a", deadline_at=late))
    assert records.expire_queued() == 1
    enqueue(quiet_redis, embeddings_job("a", deadline_at=late))
    assert claim_one(records, Task.EMBEDDINGS) is None
    enqueue(quiet_redis, canceled := embeddings_job("a"))
    records.cancel(canceled.id)
    assert samples_in(registry_of(quiet_redis))[series] == 2


def lose_for_good(redis: Redis, records: Records) -> None:
    enqueue(redis, embeddings_job("a"))
    record = claim_one(records, Task.EMBEDDINGS)
    assert record is not None
    records.renew({record.id: record.attempt}, 0.0)
    assert records.reap(Task.EMBEDDINGS, 1)


def test_what_runs_is_told(api: httpx.Client) -> None:
    [build] = [name for name in scrape(api) if name.startswith("triptych_build_info")]
    assert build.startswith("triptych_build_info{version=")
    assert scrape(api)["triptych_result_store_free_bytes{}"] > 0


def test_what_has_not_happened_yet_is_0(api: httpx.Client) -> None:
    values = scrape(api)
    for reason in ("queue_full", "no_workers", "payload_too_large", "redis_unavailable"):
        label = f"reason={reason},task=images"
        assert values[f"triptych_admission_rejections_total{{{label}}}"] == 0
    for outcome in ("replayed", "attached", "mismatch"):
        assert values[f"triptych_idempotent_replays_total{{outcome={outcome}}}"] == 0
    assert values["triptych_sse_connections{endpoint=/v1/jobs/{job_id}/events}"] == 0


def test_each_refusal_of_work_is_counted_by_its_reason(api: httpx.Client, redis: Redis) -> None:
    api.post("/v1/classify", content=b"{" + b" " * 4096, headers=JSON)
    api.post("/v1/jobs", content=b"{" + b" " * 4096, headers=JSON)
    redis.flushall()
    api.post("/v1/embeddings", json={"model": "gone", "input": "x"})
    api.post("/", json={"inputs": "x"})
    values = scrape(api)
    refused = {
        name.removeprefix("triptych_admission_rejections_total"): value
        for name, value in values.items()
        if name.startswith("triptych_admission_rejections_total") and value
    }
    assert refused == {
        "{reason=payload_too_large,task=classify}": 1,
        "{reason=payload_too_large,task=unknown}": 1,
        "{reason=no_workers,task=embeddings}": 2,
    }


@pytest.mark.usefixtures("redis")
def test_redis_away_is_a_refusal_of_work_and_not_of_a_look_at_a_job(
    settings: ServiceSettings,
) -> None:
    app = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    with serve(app) as url, httpx.Client(base_url=url, timeout=20) as http:
        http.post("/v1/embeddings", json={"input": "x"})
        http.get("/v1/jobs/job_x")
        values = scrape(http)
    refused = "triptych_admission_rejections_total{reason=redis_unavailable,task=embeddings}"
    assert values[refused] == 1
    total = sum(v for n, v in values.items() if n.startswith("triptych_admission_rejections"))
    assert total == 1


def test_a_fault_in_what_is_asked_for_is_no_refusal(api: httpx.Client) -> None:
    assert api.post("/v1/embeddings", json={"input": 3}).status_code == 400
    assert api.post("/v1/embeddings", json={"input": "x", "model": "no"}).status_code == 404
    refusals = (v for n, v in scrape(api).items() if n.startswith("triptych_admission_rejections"))
    assert sum(refusals) == 0


def test_idempotency_keys_that_came_before_are_counted_by_what_became_of_them(
    api: httpx.Client, redis: Redis
) -> None:
    asked, key = {"input": "x"}, {"idempotency-key": "k"}
    for body in (asked, asked, {"input": "y"}):
        job = api.post("/v1/embeddings", json=body, headers={**ASYNC, **key})
    Records(redis).cancel(
        api.post("/v1/embeddings", json=asked, headers={**ASYNC, **key}).json()["id"]
    )
    api.post("/v1/embeddings", json=asked, headers={**ASYNC, **key})
    assert job.status_code == 422
    values = scrape(api)
    counted = {
        outcome: values[f"triptych_idempotent_replays_total{{outcome={outcome}}}"]
        for outcome in ("attached", "replayed", "mismatch")
    }
    assert counted == {"attached": 2, "replayed": 1, "mismatch": 1}


def test_retries_of_the_client_are_counted_by_route(api: httpx.Client, worker: TestWorker) -> None:
    for num_retries in ("0", "1", "2"):
        headers = {"x-stainless-retry-count": num_retries}
        api.post("/v1/embeddings", json={"input": "x"}, headers=headers)
    assert scrape(api)["triptych_client_retries_total{route=/v1/embeddings}"] == 2
    assert worker.jobs


def test_event_streams_are_counted_while_they_are_open(api: httpx.Client) -> None:
    urls = api.post("/v1/embeddings", json={"input": "x"}, headers=ASYNC).json()["urls"]
    gauge = "triptych_sse_connections{endpoint=/v1/jobs/{job_id}/events}"
    with api.stream("GET", urls["events"]) as response:
        assert response.status_code == 200
        assert scrape(api)[gauge] == 1
    wait_for(lambda: scrape(api)[gauge] == 0)


@pytest.mark.parametrize(("flags", "is_example"), [("01", True), ("00", False)])
def test_a_request_of_a_recorded_trace_is_an_example_to_who_reads_openmetrics(
    api: httpx.Client, flags: str, is_example: bool
) -> None:
    traceparent = f"00-{TRACE_ID}-00f067aa0ba902b7-{flags}"
    api.get("/v1/models", headers={"traceparent": traceparent})
    answer = api.get("/metrics", headers=OPENMETRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    series = "triptych_http_request_duration_seconds_bucket"
    assert exemplars_in(answer.text) == ({series: TRACE_ID} if is_example else {})
    assert api.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    assert openmetrics_families(answer.text)
