"""The worker's loop on a real server: batches, refusals, signals, and RQ's books."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend
from rq.webhook import Webhook
from rq.worker import SimpleWorker, Worker, WorkerStatus

from tests.worker.conftest import MakeWorker, commands_of, wait_until
from tests.worker.jobs import classify_job, embeddings_job, image
from tests.worker.pipelines import TinyClassifier, TinyEmbedder
from tests.worker.redis_proxy import RedisProxy, redis_proxy
from worker.contract.jobs import (
    ClassifyResult,
    EmbeddingsResult,
    Failure,
    FailureCode,
    JobState,
    Task,
)
from worker.contract.record import AnyJob, Record, queue_key, queue_name
from worker.contract.records import Finished, Records, Room
from worker.contract.submission import enqueue
from worker.contract.workers import WorkerState
from worker.pieces import Pieces
from worker.rq_entries import open_queue
from worker.work import Settle


def submit(redis: Redis, *jobs: AnyJob) -> None:
    for job in jobs:
        enqueue(redis, job)


def final_record(redis: Redis, job: AnyJob) -> Record:
    record = Records(redis).get(job.id)
    assert record is not None
    assert record.state.is_final
    return record


def rq_status(redis: Redis, job: AnyJob) -> JobStatus:
    return Job.fetch(job.id, redis, JSONSerializer).get_status()


def foreign_queue(redis: Redis) -> Queue:
    """The worker's queue, as somebody else with access to Redis would use it."""
    return Queue(queue_name(Task.CLASSIFY), connection=redis, serializer=JSONSerializer)


def test_jobs_that_waited_share_one_forward(redis: Redis, local_worker: MakeWorker) -> None:
    jobs = [classify_job(image((20 * index, 0, 0))) for index in range(5)]
    submit(redis, *jobs)
    local = local_worker(Task.CLASSIFY)
    local.run_until_idle()
    assert isinstance(local.pipeline, TinyClassifier)
    assert local.pipeline.batch_sizes == [5]
    assert [final_record(redis, job).state for job in jobs] == [JobState.SUCCEEDED] * 5


def test_a_batch_costs_as_many_round_trips_as_a_single_job(
    redis: Redis, local_worker: MakeWorker
) -> None:
    local_worker(Task.CLASSIFY).run_until_idle()  # the scripts are known to the server from here on
    submit(redis, classify_job(image()))
    one = commands_of(redis, local_worker(Task.CLASSIFY).run_until_idle)
    submit(redis, *(classify_job(image()) for _ in range(30)))
    many = commands_of(redis, local_worker(Task.CLASSIFY).run_until_idle)
    assert len(many) == len(one)
    assert sum(command.startswith("EVALSHA") for command in many) == 3  # two claims, one ending


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
    submit(redis, alone)
    local_worker(Task.CLASSIFY).run_until_idle()
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


def test_a_job_of_a_model_that_is_not_held_fails_with_the_reason(
    redis: Redis, local_worker: MakeWorker
) -> None:
    local = local_worker(Task.EMBEDDINGS)
    submit(redis, gone := embeddings_job("a").model_copy(update={"model": "gone"}))
    claim = local.jobs.claim(Task.EMBEDDINGS, ["gone"], Room(1, 1))
    local.work.add(claim.records)
    failure = final_record(redis, gone).failure
    assert failure is not None
    assert failure.code is FailureCode.MODEL_NOT_SERVED


@pytest.mark.parametrize("name", ["os.system", "os.mkdir", "worker.main.leave"])
def test_an_entry_without_a_record_is_never_run_and_booked_as_failed(
    redis: Redis, local_worker: MakeWorker, tmp_path: Path, name: str
) -> None:
    proof = tmp_path / "proof"
    argument = f"touch {proof}" if name == "os.system" else str(proof)
    queue = foreign_queue(redis)
    entry = queue.enqueue_call(name, args=(argument,), timeout=-1)
    local_worker(Task.CLASSIFY).run_until_idle()
    Records(redis).mend_rq_list(Task.CLASSIFY)
    assert not proof.exists()
    assert entry.get_status() is JobStatus.FAILED
    assert queue.failed_job_registry.get_job_ids() == [entry.id]
    result = entry.latest_result()
    assert result is not None
    assert result.exc_string == "refused: no such job"


def test_the_worker_does_not_import_what_an_entry_names(
    redis: Redis, local_worker: MakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    foreign_queue(redis).enqueue_call("trap.door", timeout=-1)
    local_worker(Task.CLASSIFY).run_until_idle()
    assert os.listdir(tmp_path) == ["trap.py"]


def test_what_stands_in_the_entry_of_a_job_changes_nothing(
    redis: Redis, local_worker: MakeWorker
) -> None:
    submit(redis, job := classify_job(image()))
    entry = {"data": b"\x80\x04pickle", "origin": "another"} | {
        f"{moment}_callback_name": "os.abort" for moment in ("success", "failure", "stopped")
    }
    redis.hset(f"rq:job:{job.id}", mapping=entry)  # type: ignore[arg-type]  # redis wants wider keys
    local_worker(Task.CLASSIFY).run_until_idle()
    assert final_record(redis, job).state is JobState.SUCCEEDED


def test_an_entry_with_a_webhook_calls_nobody(redis: Redis, local_worker: MakeWorker) -> None:
    submit(redis, job := classify_job(image()))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        webhook = Webhook(url, job_status="finished").to_dict()
        redis.hset(f"rq:job:{job.id}", "webhooks", json.dumps([webhook]))
        local_worker(Task.CLASSIFY).run_until_idle()
        with pytest.raises(TimeoutError):
            server.accept()


def test_maintenance_calls_no_callback_of_a_job_that_it_takes_for_lost(
    redis: Redis, local_worker: MakeWorker
) -> None:
    submit(redis, job := classify_job(image()))
    Records(redis).claim(Task.CLASSIFY, "lost", 15.0, [job.model], Room(1, 1))
    redis.hset(f"rq:job:{job.id}", "failure_callback_name", "os.abort")
    redis.zadd("rq:wip:triptych-classify", {f"{job.id}:1": 1.0})
    local_worker(Task.CLASSIFY).worker.clean_registries()
    assert rq_status(redis, job) is JobStatus.FAILED


def test_a_refused_entry_does_not_harm_its_neighbours(
    redis: Redis, local_worker: MakeWorker
) -> None:
    first, last = classify_job(image()), classify_job(image())
    submit(redis, first)
    foreign_queue(redis).enqueue_call("os.abort", timeout=-1)
    submit(redis, last)
    local = local_worker(Task.CLASSIFY)
    local.run_until_idle()
    assert isinstance(local.pipeline, TinyClassifier)
    assert local.pipeline.batch_sizes == [2]
    assert final_record(redis, last).state is JobState.SUCCEEDED


def test_rq_books_are_truthful_and_clean_after_a_batch(
    redis: Redis, local_worker: MakeWorker
) -> None:
    good, bad = classify_job(image()), classify_job("bm90IGFuIGltYWdl")
    submit(redis, good, bad)
    local_worker(Task.CLASSIFY).run_until_idle()
    queue = open_queue(redis, Task.CLASSIFY)
    assert queue.job_ids == []
    assert queue.started_job_registry.get_job_and_execution_ids() == []
    assert queue.finished_job_registry.get_job_ids() == [good.id]
    assert queue.failed_job_registry.get_job_ids() == [bad.id]
    assert [rq_status(redis, job) for job in (good, bad)] == [JobStatus.FINISHED, JobStatus.FAILED]
    assert {redis.ttl(key) > 0 for key in redis.scan_iter("rq:job:*")} == {True}


def test_rq_stores_the_failure_code_and_nothing_of_the_request(
    redis: Redis, local_worker: MakeWorker
) -> None:
    submit(redis, job := classify_job("bm90IGFuIGltYWdl"))
    local_worker(Task.CLASSIFY).run_until_idle()
    result = Job.fetch(job.id, redis, JSONSerializer).latest_result()
    assert result is not None
    assert result.exc_string == "invalid_image"


def test_rq_sees_a_worker_that_is_busy_and_then_idle_with_its_counts(
    redis: Redis, local_worker: MakeWorker
) -> None:
    local = local_worker(Task.CLASSIFY)
    local.worker.register_birth()
    submit(redis, good := classify_job(image()), bad := classify_job("bm90IGFuIGltYWdl"))
    claim = local.jobs.claim(Task.CLASSIFY, [good.model], Room(2, 2))
    [seen] = Worker.all(connection=redis)
    assert (seen.name, seen.get_state(), seen.get_current_job_id()) == (
        local.heartbeat.name,
        WorkerStatus.BUSY,
        good.id,
    )
    first, second = claim.records
    local.jobs.settle([(first, JobState.CANCELED)])
    [seen] = Worker.all(connection=redis)
    assert (seen.get_state(), seen.get_current_job_id()) == (WorkerStatus.BUSY, bad.id)
    local.jobs.settle([(second, ClassifyResult(predictions=()))])
    [seen] = Worker.all(connection=redis)
    assert (seen.get_state(), seen.get_current_job_id()) == (WorkerStatus.IDLE, None)
    assert (seen.successful_job_count, seen.failed_job_count) == (1, 1)
    assert seen.total_working_time > 0


def test_a_job_canceled_in_the_queue_never_runs(redis: Redis, local_worker: MakeWorker) -> None:
    submit(redis, job := classify_job(image()))
    Records(redis).cancel(job.id)
    local = local_worker(Task.CLASSIFY)
    local.run_until_idle()
    assert isinstance(local.pipeline, TinyClassifier)
    assert local.pipeline.batch_sizes == []
    assert not redis.exists(f"rq:job:{job.id}")


def test_an_entry_of_a_job_that_ended_is_dropped(redis: Redis, local_worker: MakeWorker) -> None:
    submit(redis, job := classify_job(image()))
    records = Records(redis)
    records.claim(Task.CLASSIFY, "another", 15.0, [job.model], Room(1, 1))
    records.finish([Finished(job.id, 1, JobState.CANCELED)])
    redis.rpush(queue_key(Task.CLASSIFY), job.id)  # as rq-dashboard's "requeue" does
    local_worker(Task.CLASSIFY).run_until_idle()
    records.mend_rq_list(Task.CLASSIFY)
    assert final_record(redis, job).state is JobState.CANCELED
    assert not redis.exists(f"rq:job:{job.id}")
    assert redis.llen(queue_key(Task.CLASSIFY)) == 0


def test_a_job_past_its_deadline_expires_without_running(
    redis: Redis, local_worker: MakeWorker
) -> None:
    submit(redis, job := embeddings_job("late", deadline_at=1.0))
    local = local_worker(Task.EMBEDDINGS)
    local.run_until_idle()
    assert isinstance(local.pipeline, TinyEmbedder)
    assert local.pipeline.batch_sizes == []
    assert final_record(redis, job).state is JobState.EXPIRED


def test_a_job_whose_deadline_passes_while_it_runs_has_expired(
    redis: Redis, local_worker: MakeWorker
) -> None:
    submit(redis, job := embeddings_job("slow", deadline_at=time.time() + 0.2))
    local = local_worker(Task.EMBEDDINGS)
    [record] = local.jobs.claim(Task.EMBEDDINGS, [job.model], Room(1, 1)).records
    wait_until(lambda: time.time() > (job.deadline_at or 0.0), "the clock stands still")
    local.jobs.settle([(record, EmbeddingsResult(embeddings=(), num_tokens=0))])
    assert final_record(redis, job).state is JobState.EXPIRED


def test_maintenance_leaves_waiting_and_finished_jobs_alone(
    redis: Redis, local_worker: MakeWorker
) -> None:
    submit(redis, done := classify_job(image()))
    local = local_worker(Task.CLASSIFY)
    local.run_until_idle()
    submit(redis, waiting := classify_job(image()))
    local.worker.run_maintenance_tasks()  # type: ignore[no-untyped-call]
    assert rq_status(redis, done) is JobStatus.FINISHED
    assert rq_status(redis, waiting) is JobStatus.QUEUED


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
    local = local_worker(Task.CLASSIFY)
    submit(redis, job := classify_job(image()))
    local.jobs.claim(Task.CLASSIFY, [job.model], Room(1, 1))
    redis.zadd("rq:wip:triptych-classify", {f"{job.id}:1": 1.0})
    local.jobs.renew()
    queue = open_queue(redis, Task.CLASSIFY)
    queue.started_job_registry.cleanup()
    assert queue.started_job_registry.get_job_ids() == [job.id]


def test_the_lease_of_a_job_that_is_anothers_by_now_is_forgotten(
    redis: Redis, records: Records, local_worker: MakeWorker
) -> None:
    local = local_worker(Task.CLASSIFY)
    submit(redis, job := classify_job(image()))
    local.jobs.claim(Task.CLASSIFY, [job.model], Room(1, 1))
    records.release({job.id: 1})
    local.jobs.renew()
    assert commands_of(redis, local.jobs.renew) == []


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


def test_a_worker_that_waits_for_its_next_job_is_idle(
    redis: Redis, local_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = local_worker(Task.CLASSIFY)
    submit(redis, classify_job(image()))
    noted: list[WorkerState] = []
    while_waiting: list[WorkerState] = []
    note, wait = local.heartbeat.note, local.selection.wait

    def noting(state: WorkerState) -> None:
        noted.append(state)
        note(state)

    def waiting(timeout_s: float) -> None:
        while_waiting.append(noted[-1])
        wait(timeout_s)

    monkeypatch.setattr(local.heartbeat, "note", noting)
    monkeypatch.setattr(local.selection, "wait", waiting)
    local.run_until_idle()
    assert WorkerState.BUSY in noted
    assert set(while_waiting) == {WorkerState.IDLE}


def test_a_signal_ends_a_wait_at_once(local_worker: MakeWorker) -> None:
    local = local_worker(Task.CLASSIFY)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    local.worker.serve()
    assert local.worker.was_asked_to_stop


def test_a_suspended_worker_takes_nothing_until_it_is_resumed(
    redis: Redis, local_worker: MakeWorker
) -> None:
    submit(redis, job := classify_job(image()))
    suspend(redis)
    local = local_worker(Task.CLASSIFY)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    local.worker.serve()
    assert rq_status(redis, job) is JobStatus.QUEUED
    resume(redis)
    local_worker(Task.CLASSIFY).run_until_idle()
    assert final_record(redis, job).state is JobState.SUCCEEDED


@dataclass
class Steps:
    """A job after the other, of so many steps, each a call of `do`; then it has a result."""

    settle: Settle
    do: Callable[[int], None]
    num_steps: int = 3
    num_done: int = 0
    records: list[Record] = field(default_factory=list)
    models_in_use: Sequence[str] = ()
    pieces: Pieces = field(default_factory=Pieces)

    @property
    def is_idle(self) -> bool:
        return not self.records

    def room(self) -> Room:
        return Room(1, 1)

    def add(self, records: Sequence[Record]) -> None:
        self.records.extend(records)

    def advance(self) -> None:
        self.num_done += 1
        self.do(self.num_done)
        if self.num_done % self.num_steps == 0:
            self.settle([(self.records.pop(0), ClassifyResult(predictions=()))])

    def give_back(self) -> list[Record]:
        given_back, self.records = self.records, []
        return given_back

    def finish(self) -> None:
        pass

    def salvage(self, timeout_s: float) -> None:
        pass

    wants_time: bool = False

    def use_time(self) -> None:
        pass

    def warm_up(self, model: str) -> None:
        pass


@pytest.fixture
def proxy(redis_url: str) -> Iterator[RedisProxy]:
    with redis_proxy(redis_url) as proxy:
        yield proxy


def test_what_escapes_from_the_work_ends_the_loop_as_a_failure_and_frees_its_jobs(
    redis: Redis, records: Records, local_worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(step: int) -> None:
        raise RuntimeError(f"the engine broke in step {step}")

    job, waiting = classify_job(image()), classify_job(image())
    submit(redis, job, waiting)
    local = local_worker(Task.CLASSIFY)
    local.worker._work = Steps(local.jobs.settle, fail)
    local.run_until_idle()
    assert local.worker.has_failed
    assert "the engine broke in step 1" in caplog.text
    assert SimpleWorker.all(connection=redis) == []
    assert open_queue(redis, Task.CLASSIFY).job_ids == [waiting.id]
    assert [lost.job_id for lost in records.reap(Task.CLASSIFY, max_losses=3)] == [job.id]


def test_the_work_goes_on_while_redis_is_away_and_jobs_are_taken_when_it_is_back(
    redis: Redis, local_worker: MakeWorker, proxy: RedisProxy
) -> None:
    def come_and_go(step: int) -> None:
        proxy.go_away() if step == 1 else setattr(proxy, "is_away", step == 2)

    jobs = [classify_job(image()), classify_job(image())]
    submit(redis, *jobs)
    local = local_worker(Task.CLASSIFY, proxy.client(num_retries=0))
    local.worker._work = work = Steps(local.jobs.settle, come_and_go, num_steps=4)
    local.run_until_idle()
    assert not local.worker.has_failed
    assert [final_record(redis, job).state for job in jobs] == [JobState.SUCCEEDED] * 2
    assert work.num_done == 8


class Measuring(Steps):
    """Has something to do beside jobs, which takes long."""

    has_ended = False

    def use_time(self) -> None:
        assert self.is_idle
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 60.0
        while time.monotonic() < until:
            time.sleep(0.01)
        self.has_ended = True


def test_time_without_jobs_is_used_and_a_signal_ends_that_at_once(
    redis: Redis, local_worker: MakeWorker
) -> None:
    submit(redis, job := classify_job(image()))
    local = local_worker(Task.CLASSIFY)
    local.worker._work = work = Measuring(local.jobs.settle, lambda _: None, wants_time=True)
    local.worker.serve()
    assert final_record(redis, job).state is JobState.SUCCEEDED
    assert local.worker.was_asked_to_stop
    assert not local.worker.has_failed
    assert not work.has_ended


def test_the_loops_client_keeps_its_timeout(redis_url: str, local_worker: MakeWorker) -> None:
    with Redis.from_url(redis_url, socket_timeout=7.0) as client:
        worker = local_worker(Task.CLASSIFY, client).worker
        assert worker.connection.connection_pool.connection_kwargs["socket_timeout"] == 7.0
