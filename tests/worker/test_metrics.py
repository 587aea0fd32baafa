"""What a worker measures, and what it costs Prometheus."""

from pathlib import Path
from typing import cast

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from tests.claims import claim_one
from tests.exposition import (
    assert_keeps_the_rules,
    exemplars_in,
    num_series,
    openmetrics_of,
    samples_in,
)
from tests.worker.conftest import MODELS, MakeWorker
from tests.worker.jobs import embeddings_job, image_job
from tests.worker.pipelines import TinyImagePipeline
from tests.worker.studio import Studio
from worker.contract.jobs import EmbeddingsJob, EmbeddingsResult, Failure, FailureCode, Task
from worker.contract.record import Outcome
from worker.contract.records import Records
from worker.contract.submission import enqueue
from worker.image_run import ImagePipeline
from worker.jobs_in_hand import JobsInHand
from worker.metrics import WorkerMetrics, pixels_bucket

MOST_SERIES = 1500  # of a process that serves 20 models
_GPU_SERIES = 9
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
ANSWER = EmbeddingsResult(embeddings=("AAAA",), num_tokens=3)


def end(redis: Redis, outcome: Outcome, **fields: object) -> CollectorRegistry:
    """Let a worker take a job and end it so; gives what it has counted."""
    job = embeddings_job("a").model_copy(update=fields)
    assert isinstance(job, EmbeddingsJob)
    enqueue(redis, job)
    records, metrics = Records(redis), WorkerMetrics(Task.EMBEDDINGS, [job.model])
    record = claim_one(records, Task.EMBEDDINGS)
    assert record is not None
    JobsInHand(records, records, metrics, "worker", 15.0).settle([(record, outcome)])
    return metrics.registry


@pytest.fixture
def studio(redis: Redis, tmp_path: Path) -> Studio:
    return Studio(redis, tmp_path, cast(ImagePipeline, TinyImagePipeline()))


@pytest.mark.parametrize("task", Task)
def test_with_20_models_a_worker_has_fewer_series_than_it_may(task: Task) -> None:
    metrics = WorkerMetrics(task, [f"model-{i}" for i in range(20)])
    for waits in (metrics.batch_size, metrics.batch_wait, metrics.batch_padding):
        waits.labels(task)
    metrics.cancel_latency.labels(task)
    metrics.set_memory_budget(1)
    assert num_series(metrics.registry) + _GPU_SERIES <= MOST_SERIES


@pytest.mark.parametrize("task", Task)
def test_the_names_keep_prometheus_rules_and_both_formats_parse(task: Task) -> None:
    metrics = WorkerMetrics(task, [MODELS[task]])
    metrics.set_memory_budget(1)
    assert_keeps_the_rules(metrics.registry)


@pytest.mark.parametrize("task", Task)
def test_what_has_not_happened_yet_is_0(task: Task) -> None:
    values = samples_in(WorkerMetrics(task, ["m"]).registry)
    for outcome in ("succeeded", "failed", "canceled", "expired"):
        assert values[f"triptych_jobs_finished_total{{model=m,outcome={outcome},task={task}}}"] == 0
    assert values[f"triptych_job_failures_total{{model=m,reason=gpu_oom,task={task}}}"] == 0
    assert values[f"triptych_job_e2e_duration_seconds_count{{model=m,task={task}}}"] == 0
    assert values["triptych_gpu_out_of_memory_total{model=m}"] == 0


def test_there_is_no_series_of_what_there_is_not() -> None:
    names = {name.partition("{")[0] for name in samples_in(WorkerMetrics(Task.CLASSIFY).registry)}
    assert "triptych_memory_budget_bytes" not in names
    assert not [name for name in names if name.startswith(("triptych_gpu", "triptych_image"))]


@pytest.mark.parametrize(
    ("task", "limits_s"),
    [(Task.IMAGES, ("2.5", "10.0")), (Task.CLASSIFY, ("0.25",)), (Task.EMBEDDINGS, ("0.25",))],
)
def test_the_limits_of_the_objectives_are_edges(task: Task, limits_s: tuple[str, ...]) -> None:
    values = samples_in(WorkerMetrics(task, ["m"]).registry)
    duration = "triptych_job_e2e_duration_seconds_bucket"
    for limit_s in limits_s:
        assert f"{duration}{{le={limit_s},model=m,task={task}}}" in values
    assert f"triptych_job_queue_wait_seconds_bucket{{le=30.0,task={task}}}" in values


@pytest.mark.parametrize("task", Task)
def test_a_warm_up_counts_for_nothing_that_an_objective_is_measured_by(
    local_worker: MakeWorker, task: Task
) -> None:
    worker = local_worker(task)
    before = _without_the_process(worker.metrics.registry)
    worker.work.warm_up(MODELS[task])
    assert _without_the_process(worker.metrics.registry) == before


def _without_the_process(registry: CollectorRegistry) -> dict[str, float]:
    return {n: v for n, v in samples_in(registry).items() if not n.startswith("process_")}


def test_a_job_is_timed_from_its_submit_to_its_end(redis: Redis) -> None:
    values = samples_in(end(redis, ANSWER))
    duration = "triptych_job_e2e_duration_seconds"
    labels = "model=f_net_shapes,task=embeddings"
    assert values[f"{duration}_count{{{labels}}}"] == 1
    run_s = values[f"triptych_job_run_duration_seconds_sum{{{labels}}}"]
    assert values[f"{duration}_sum{{{labels}}}"] >= run_s


def test_only_jobs_that_succeeded_say_how_fast_the_service_is(redis: Redis) -> None:
    values = samples_in(end(redis, Failure(code=FailureCode.INTERNAL, message="it broke")))
    labels = "model=f_net_shapes,task=embeddings"
    assert values[f"triptych_job_e2e_duration_seconds_count{{{labels}}}"] == 0
    assert values[f"triptych_job_run_duration_seconds_count{{{labels}}}"] == 1


def test_a_job_of_a_recorded_trace_is_an_example_of_its_bucket(redis: Redis) -> None:
    registry = end(redis, ANSWER, traceparent=f"00-{TRACE_ID}-00f067aa0ba902b7-01")
    assert exemplars_in(openmetrics_of(registry)) == {
        "triptych_job_e2e_duration_seconds_bucket": TRACE_ID
    }


@pytest.mark.parametrize("traceparent", [None, f"00-{TRACE_ID}-00f067aa0ba902b7-00", "junk"])
def test_a_trace_that_nobody_can_look_up_is_no_example(
    redis: Redis, traceparent: str | None
) -> None:
    assert exemplars_in(openmetrics_of(end(redis, ANSWER, traceparent=traceparent))) == {}


def test_a_cancel_is_timed_until_its_job_has_no_further_step(studio: Studio) -> None:
    studio.add(job := image_job(num_steps=5), image_job(num_steps=5))
    studio.advance(1)
    studio.records.cancel(job.id)
    studio.advance(1)
    values = samples_in(studio.metrics.registry)
    assert values["triptych_cancel_latency_seconds_count{task=images}"] == 1
    assert 0 < values["triptych_cancel_latency_seconds_sum{task=images}"] < 60


def test_an_image_is_counted_by_its_pixels_and_its_file(studio: Studio) -> None:
    studio.paint(image_job(num_steps=3))
    values = samples_in(studio.metrics.registry)
    steps = "triptych_denoise_step_duration_seconds_count"
    assert values[f"{steps}{{pixels_bucket=le_0_5mp}}"] == 3
    assert values[f"{steps}{{pixels_bucket=le_1mp}}"] == 0
    assert values["triptych_result_store_operation_duration_seconds_count{op=store}"] == 1
    assert values["triptych_result_store_errors_total{op=store}"] == 0


def test_a_file_that_cannot_be_stored_is_an_error_of_the_store(
    studio: Studio, tmp_path: Path
) -> None:
    (tmp_path / "images").write_bytes(b"where the directory is to be")
    studio.paint(image_job(num_steps=1))
    assert samples_in(studio.metrics.registry)["triptych_result_store_errors_total{op=store}"] == 1


@pytest.mark.parametrize(
    ("width", "height", "bucket"),
    [
        (1024, 512, "le_0_5mp"),
        (1024, 528, "le_1mp"),
        (1024, 1024, "le_1mp"),
        (1440, 1440, "le_2mp"),
        (2048, 2048, "gt_2mp"),
    ],
)
def test_an_image_is_in_the_smallest_bucket_that_holds_it(
    width: int, height: int, bucket: str
) -> None:
    assert pixels_bucket(width * height) == bucket


def test_rows_say_how_long_they_waited_for_their_forward(
    redis: Redis, local_worker: MakeWorker
) -> None:
    worker = local_worker(Task.EMBEDDINGS)
    enqueue(redis, embeddings_job("a b", "c"))
    worker.run_until_idle()
    values = samples_in(worker.metrics.registry)
    assert values["triptych_batch_wait_seconds_count{task=embeddings}"] == 2
    assert 0 <= values["triptych_batch_padding_ratio_sum{task=embeddings}"] < 1
