"""What the heartbeat keeps alive."""

import signal
from dataclasses import replace

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.cards import card_of
from tests.worker.conftest import commands_of, wait_until
from tests.worker.contract.test_workers import status
from tests.worker.jobs import image_job
from tests.worker.redis_proxy import redis_proxy
from worker.contract.jobs import JobState, Task
from worker.contract.model_cards import card_key
from worker.contract.record import running_key
from worker.contract.records import Records, Room
from worker.contract.submission import enqueue
from worker.contract.workers import ModelState, WorkerState, read_all
from worker.heartbeat import Heartbeat
from worker.jobs_in_hand import JobsInHand
from worker.metrics import WorkerMetrics

LEASE_S = 0.5


@pytest.fixture
def heartbeat(redis: Redis) -> Heartbeat:
    loading = replace(status("w"), state=WorkerState.LOADING)
    return Heartbeat(redis, loading, interval_s=0.05)


def test_a_worker_is_listed_from_its_start_to_its_stop(redis: Redis, heartbeat: Heartbeat) -> None:
    heartbeat.start()
    assert [worker.state for worker in read_all(redis)] == [WorkerState.LOADING]
    heartbeat.announce_ready(card_of("a", Task.IMAGES), 1.5)
    assert [worker.state for worker in read_all(redis)] == [WorkerState.IDLE]
    heartbeat.stop()
    assert read_all(redis) == []


def test_a_models_card_is_kept_as_long_as_its_worker_lives(
    redis: Redis, heartbeat: Heartbeat
) -> None:
    card = card_of("a", Task.IMAGES)
    heartbeat.note_progress("a", "half")
    heartbeat.start()
    [loading] = read_all(redis)
    assert (loading.models[0].state, loading.models[0].progress) == (ModelState.LOADING, "half")
    heartbeat.announce_ready(card, 1.5)
    [status] = read_all(redis)
    ready, failed = status.models
    assert (ready.state, ready.progress, ready.load_s) == (ModelState.READY, None, 1.5)
    assert (ready.aliases, ready.card) == (("x", "y"), card.digest)
    assert ready.results_digest == card.results_digest is not None
    assert failed.state is ModelState.FAILED
    for _ in range(2):
        redis.delete(card_key(card.digest))  # as a restart may, or the end of its time
        wait_until(lambda: redis.exists(card_key(card.digest)) == 1, "the card did not come back")
    heartbeat.note_resident("a", is_resident=False)
    wait_until(lambda: not read_all(redis)[0].models[0].is_resident, "it is still resident")
    assert read_all(redis)[0].models[0].state is ModelState.READY
    heartbeat.stop()


def test_a_worker_is_of_use_while_it_has_a_model_that_is_ready(
    redis: Redis, heartbeat: Heartbeat
) -> None:
    heartbeat.announce_failed("a", "a/config.json is missing")
    heartbeat.note(WorkerState.IDLE)  # after a job that ended with the reason
    [failing] = read_all(redis)
    assert failing.state is WorkerState.LOADING
    assert failing.models[0].state is ModelState.FAILED
    assert failing.models[0].reason == "a/config.json is missing"
    heartbeat.announce_ready(card_of("a", Task.IMAGES), 1.5)
    [ready] = read_all(redis)
    assert (ready.state, ready.models[0].reason) == (WorkerState.IDLE, None)
    heartbeat.announce_failed("a", "again")
    [failing] = read_all(redis)
    assert (failing.state, failing.models[0].card) == (WorkerState.LOADING, None)


def test_leases_are_renewed_until_their_jobs_are_settled(
    redis: Redis, records: Records, heartbeat: Heartbeat
) -> None:
    jobs = JobsInHand(records, records, WorkerMetrics(Task.CLASSIFY), heartbeat.name, LEASE_S)
    heartbeat.also(jobs.renew)
    enqueue(redis, job := image_job())
    [record] = jobs.claim(Task.IMAGES, [job.model], Room(1, 1)).records
    first_end = records.now() + LEASE_S
    heartbeat.start()
    wait_until(lambda: records.now() > first_end + LEASE_S, "the clock stands still")
    assert records.reap(Task.IMAGES, max_losses=3) == []
    jobs.settle([(record, JobState.CANCELED)])
    assert redis.zcard(running_key(Task.IMAGES)) == 0
    assert commands_of(redis, jobs.renew) == []
    heartbeat.stop()


@pytest.mark.parametrize("error", [RedisConnectionError(), KeyError("a bug")])
def test_a_companion_that_fails_stops_neither_the_beats_nor_the_others(
    heartbeat: Heartbeat, error: Exception
) -> None:
    beats: list[str] = []

    def fail() -> None:
        raise error

    heartbeat.also(fail)
    heartbeat.also(lambda: beats.append("beat"))
    heartbeat.start()
    wait_until(lambda: len(beats) > 1, "the heartbeat stopped")
    heartbeat.stop()


def test_the_log_says_now_and_then_that_redis_is_away_and_why(
    heartbeat: Heartbeat, caplog: pytest.LogCaptureFixture
) -> None:
    beats: list[str] = []

    def fail() -> None:
        beats.append("beat")
        raise RedisConnectionError("Connection refused")

    for _ in range(3):
        heartbeat.also(fail)
    heartbeat.start()
    wait_until(lambda: len(beats) > 8, "the heartbeat stopped")
    heartbeat.stop()
    said = [line for line in caplog.messages if "heartbeat_failed" in line]
    assert said == ["event=heartbeat_failed error=ConnectionError reason=Connection refused"]


def test_a_heartbeat_stops_although_redis_is_away(redis: Redis, redis_url: str) -> None:
    with redis_proxy(redis_url) as proxy:
        heartbeat = Heartbeat(proxy.client(num_retries=0), status("w"), interval_s=0.05)
        heartbeat.start()
        proxy.go_away()
        heartbeat.stop()
    assert [worker.name for worker in read_all(redis)] == ["w"]


def test_draining_is_never_taken_back(redis: Redis, heartbeat: Heartbeat) -> None:
    heartbeat.note(WorkerState.DRAINING)
    heartbeat.announce_ready(card_of("a", Task.IMAGES), 1.5)
    heartbeat.note(WorkerState.IDLE)
    assert [worker.state for worker in read_all(redis)] == [WorkerState.DRAINING]


def test_a_signal_during_a_note_does_not_deadlock(heartbeat: Heartbeat) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: heartbeat.note(WorkerState.DRAINING))
    try:
        with heartbeat._lock:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heartbeat._status.state is WorkerState.DRAINING


def test_a_heartbeat_is_fresh_as_long_as_others_see_the_worker(
    heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not heartbeat.is_fresh
    heartbeat.start()
    assert heartbeat.is_fresh
    monkeypatch.setattr("worker.contract.workers.STATUS_TTL_S", 0)
    assert not heartbeat.is_fresh
    heartbeat.stop()
