"""The worker's loop on a real server: batches, refusals, and RQ's books."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from redis import Redis
from rq.executions import ExecutionRegistry
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.webhook import Webhook

from tests.worker.conftest import LocalWorker
from tests.worker.jobs import classify_job, embeddings_job, image, image_job
from tests.worker.pipelines import TinyClassifier, TinyEmbedder
from worker.contract.jobs import (
    ClassifyResult,
    EmbeddingsResult,
    Failure,
    FailureCode,
    JobState,
    Task,
)
from worker.contract.records import AnyJob, Record, Records, enqueue, queue_name
from worker.rq_entries import open_queue

WEBHOOK_STATUSES: tuple[Literal["finished", "failed"], ...] = ("finished", "failed")

MakeWorker = Callable[[Task], LocalWorker]


def submit(redis: Redis, *jobs: AnyJob) -> None:
    for job in jobs:
        enqueue(redis, job, Records(redis))


def final_record(redis: Redis, job: AnyJob) -> Record:
    record = Records(redis).get(job.id)
    assert record is not None
    assert record.state.is_final
    return record


def rq_status(redis: Redis, job: AnyJob) -> JobStatus:
    return Job.fetch(job.id, redis, JSONSerializer).get_status()


def test_jobs_that_waited_share_one_forward(redis: Redis, local_worker: MakeWorker) -> None:
    jobs = [classify_job(image((20 * index, 0, 0))) for index in range(5)]
    submit(redis, *jobs)
    local = local_worker(Task.CLASSIFY)
    local.run_until_idle()
    assert isinstance(local.pipeline, TinyClassifier)
    assert local.pipeline.batch_sizes == [5]
    assert [final_record(redis, job).state for job in jobs] == [JobState.SUCCEEDED] * 5


def test_a_bad_image_fails_alone(redis: Redis, local_worker: MakeWorker) -> None:
    good, bad = classify_job(image()), classify_job(image(), "bm90IGFuIGltYWdl")
    submit(redis, good, bad)
    local_worker(Task.CLASSIFY).run_until_idle()
    assert final_record(redis, good).state is JobState.SUCCEEDED
    failure = final_record(redis, bad).failure
    assert failure is not None
    assert (failure.code, failure.param) == (FailureCode.INVALID_IMAGE, "input[1]")


def test_a_forward_error_fails_only_its_group(redis: Redis, local_worker: MakeWorker) -> None:
    wide, narrow = classify_job(image(width=8)), classify_job(image(width=13))
    submit(redis, wide, narrow)
    local_worker(Task.CLASSIFY).run_until_idle()
    assert final_record(redis, wide).state is JobState.SUCCEEDED
    failure = final_record(redis, narrow).failure
    assert failure == Failure(code=FailureCode.INTERNAL, message="the worker failed on this job")


def test_an_image_has_the_same_answer_alone_and_in_a_batch(
    redis: Redis, local_worker: MakeWorker
) -> None:
    alone, together = classify_job(image()), classify_job(image())
    local = local_worker(Task.CLASSIFY)
    submit(redis, alone)
    local.run_until_idle()
    submit(redis, classify_job(image((1, 2, 3))), together, classify_job(image((9, 9, 9))))
    local_worker(Task.CLASSIFY).run_until_idle()
    results = [final_record(redis, job).result for job in (alone, together)]
    assert isinstance(results[0], ClassifyResult)
    assert results[0] == results[1]


def test_texts_of_one_padded_length_share_a_forward_and_others_do_not(
    redis: Redis, local_worker: MakeWorker
) -> None:
    job = embeddings_job("a b", "a b c d e", "a b c")  # padded to 4, 8, 4
    submit(redis, job)
    local = local_worker(Task.EMBEDDINGS)
    local.run_until_idle()
    assert isinstance(local.pipeline, TinyEmbedder)
    assert local.pipeline.batch_sizes == [2, 1]
    result = final_record(redis, job).result
    assert isinstance(result, EmbeddingsResult)
    assert (len(result.embeddings), result.num_tokens) == (3, 10)


def test_a_text_that_is_too_long_names_its_place(redis: Redis, local_worker: MakeWorker) -> None:
    job = embeddings_job("short", "much " * 20)
    submit(redis, job)
    local_worker(Task.EMBEDDINGS).run_until_idle()
    failure = final_record(redis, job).failure
    assert failure is not None
    assert (failure.code, failure.param) == (FailureCode.INPUT_TOO_LONG, "input[1]")


def test_image_jobs_run_one_at_a_time(redis: Redis, local_worker: MakeWorker) -> None:
    jobs = [image_job(seeds=(1, 2)), image_job()]
    submit(redis, *jobs)
    local_worker(Task.IMAGES).run_until_idle()
    first, second = (final_record(redis, job) for job in jobs)
    assert first.finished_at is not None
    assert second.started_at is not None
    assert first.finished_at <= second.started_at


@pytest.mark.parametrize("name", ["os.system", "os.mkdir", "worker.tasks.Batch"])
def test_any_other_function_is_refused_and_never_called(
    redis: Redis, local_worker: MakeWorker, tmp_path: Path, name: str
) -> None:
    proof = tmp_path / "proof"
    argument = f"touch {proof}" if name == "os.system" else str(proof)
    queue = Queue(queue_name(Task.CLASSIFY), connection=redis, serializer=JSONSerializer)
    entry = queue.enqueue_call(name, args=(argument,), timeout=-1)
    local_worker(Task.CLASSIFY).run_until_idle()
    assert not proof.exists()
    assert entry.get_status() is JobStatus.FAILED
    assert queue.failed_job_registry.get_job_ids() == [entry.id]


@pytest.mark.parametrize("moment", ["success", "failure", "stopped"])
def test_an_entry_with_a_callback_is_refused(
    redis: Redis, local_worker: MakeWorker, moment: str
) -> None:
    job = classify_job(image())
    submit(redis, job)
    redis.hset(f"rq:job:{job.id}", f"{moment}_callback_name", "os.abort")
    local_worker(Task.CLASSIFY).run_until_idle()
    assert rq_status(redis, job) is JobStatus.FAILED


def test_an_entry_with_a_webhook_is_refused_and_calls_nobody(
    redis: Redis, local_worker: MakeWorker
) -> None:
    job = classify_job(image())
    submit(redis, job)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        webhooks = [Webhook(url, job_status=status).to_dict() for status in WEBHOOK_STATUSES]
        redis.hset(f"rq:job:{job.id}", "webhooks", json.dumps(webhooks))
        local_worker(Task.CLASSIFY).run_until_idle()
        with pytest.raises(TimeoutError):
            server.accept()
    assert rq_status(redis, job) is JobStatus.FAILED


def test_a_refused_entry_does_not_harm_its_neighbours(
    redis: Redis, local_worker: MakeWorker
) -> None:
    first, last = classify_job(image()), classify_job(image())
    submit(redis, first)
    queue = Queue(queue_name(Task.CLASSIFY), connection=redis, serializer=JSONSerializer)
    queue.enqueue_call("os.abort", timeout=-1)
    submit(redis, last)
    local = local_worker(Task.CLASSIFY)
    local.run_until_idle()
    assert isinstance(local.pipeline, TinyClassifier)
    assert local.pipeline.batch_sizes == [2]
    assert final_record(redis, last).state is JobState.SUCCEEDED


def test_a_payload_that_is_no_json_is_refused(redis: Redis, local_worker: MakeWorker) -> None:
    job = classify_job(image())
    submit(redis, job)
    redis.hset(f"rq:job:{job.id}", "data", b"\x80\x04pickle")
    local_worker(Task.CLASSIFY).run_until_idle()
    assert rq_status(redis, job) is JobStatus.FAILED


def test_rq_books_are_truthful_and_clean_after_a_batch(
    redis: Redis, local_worker: MakeWorker
) -> None:
    good, bad = classify_job(image()), classify_job("bm90IGFuIGltYWdl")
    submit(redis, good, bad)
    local_worker(Task.CLASSIFY).run_until_idle()
    queue = open_queue(redis, Task.CLASSIFY)
    assert queue.job_ids == []
    assert queue.intermediate_queue.get_job_ids() == []
    assert queue.started_job_registry.get_job_and_execution_ids() == []
    assert queue.finished_job_registry.get_job_ids() == [good.id]
    assert queue.failed_job_registry.get_job_ids() == [bad.id]
    assert ExecutionRegistry(good.id, redis).get_execution_ids() == []
    assert list(redis.scan_iter("rq:execution:*")) == []


def test_rq_stores_the_failure_code_and_nothing_of_the_request(
    redis: Redis, local_worker: MakeWorker
) -> None:
    job = image_job(prompt="broken")
    submit(redis, job)
    local_worker(Task.IMAGES).run_until_idle()
    result = Job.fetch(job.id, redis, JSONSerializer).latest_result()
    assert result is not None
    text = result.exc_string
    assert text is not None
    assert "internal_error" in text
    assert "broken" not in text


def test_a_job_canceled_in_the_queue_never_runs(redis: Redis, local_worker: MakeWorker) -> None:
    job = classify_job(image())
    submit(redis, job)
    Records(redis).cancel(job.id)
    local = local_worker(Task.CLASSIFY)
    local.run_until_idle()
    assert isinstance(local.pipeline, TinyClassifier)
    assert local.pipeline.batch_sizes == []
    assert not redis.exists(f"rq:job:{job.id}")


def test_an_entry_of_a_job_that_ended_is_dropped(redis: Redis, local_worker: MakeWorker) -> None:
    job = classify_job(image())
    submit(redis, job)
    records = Records(redis)
    attempt = records.start(job.id, "another", 15.0)
    assert attempt is not None
    records.finish(job.id, attempt, JobState.CANCELED)
    local_worker(Task.CLASSIFY).run_until_idle()
    assert final_record(redis, job).state is JobState.CANCELED
    assert not redis.exists(f"rq:job:{job.id}")
    assert open_queue(redis, Task.CLASSIFY).intermediate_queue.get_job_ids() == []


def test_a_job_past_its_deadline_expires_without_running(
    redis: Redis, local_worker: MakeWorker
) -> None:
    job = embeddings_job("late", deadline_at=1.0)
    submit(redis, job)
    local = local_worker(Task.EMBEDDINGS)
    local.run_until_idle()
    assert isinstance(local.pipeline, TinyEmbedder)
    assert local.pipeline.batch_sizes == []
    assert final_record(redis, job).state is JobState.EXPIRED


def test_maintenance_leaves_waiting_and_finished_jobs_alone(
    redis: Redis, local_worker: MakeWorker
) -> None:
    job = classify_job(image())
    local = local_worker(Task.CLASSIFY)
    local.run_until_idle()
    submit(redis, job)
    redis.lpush("rq:queue:triptych-classify:intermediate", "job_of_another_worker")
    local.worker.run_maintenance_tasks()  # type: ignore[no-untyped-call]
    local_worker(Task.CLASSIFY).run_until_idle()
    assert final_record(redis, job).state is JobState.SUCCEEDED
    assert rq_status(redis, job) is JobStatus.FINISHED


def test_a_worker_takes_jobs_by_the_safe_move_of_one_queue(local_worker: MakeWorker) -> None:
    worker = local_worker(Task.CLASSIFY).worker
    assert len(worker.queues) == 1
    assert worker.queues[0].get_redis_server_version() >= (6, 2, 0)


def test_a_beat_before_the_first_job_does_not_take_the_workers_name(
    redis: Redis, local_worker: MakeWorker
) -> None:
    submit(redis, job := classify_job(image()))
    local = local_worker(Task.CLASSIFY)
    local.heartbeat._beat()
    local.run_until_idle()
    assert final_record(redis, job).state is JobState.SUCCEEDED


def test_the_heartbeat_renews_what_rq_knows_of_a_running_job(
    redis: Redis, local_worker: MakeWorker
) -> None:
    worker = local_worker(Task.CLASSIFY).worker
    job = classify_job(image())
    submit(redis, job)
    entry = Job.fetch(job.id, redis, JSONSerializer)
    worker.register_birth()
    worker._begin([entry])
    redis.zadd("rq:wip:triptych-classify", {worker._executions[job.id].composite_key: 1.0})
    worker.keep_alive()
    queue = open_queue(redis, Task.CLASSIFY)
    queue.started_job_registry.cleanup()
    assert [found for found, _ in queue.started_job_registry.get_job_and_execution_ids()] == [
        job.id
    ]


def test_the_metrics_count_how_jobs_ended(redis: Redis, local_worker: MakeWorker) -> None:
    submit(redis, classify_job(image()), classify_job("bm90"))
    local = local_worker(Task.CLASSIFY)
    local.run_until_idle()
    values = {
        outcome: local.metrics.registry.get_sample_value(
            "triptych_jobs_finished_total",
            {"task": "classify", "model": "vit_shapes", "outcome": outcome},
        )
        for outcome in ("succeeded", "failed")
    }
    assert values == {"succeeded": 1.0, "failed": 1.0}


def test_the_worker_does_not_import_what_an_entry_names(
    redis: Redis, local_worker: MakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    queue = Queue(queue_name(Task.CLASSIFY), connection=redis, serializer=JSONSerializer)
    queue.enqueue_call("trap.door", timeout=-1)
    local_worker(Task.CLASSIFY).run_until_idle()
    assert os.listdir(tmp_path) == ["trap.py"]
