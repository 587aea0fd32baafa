"""What must come true after a request is over: sent as soon as Redis takes it, and never lost."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service import job_changes
from service.job_changes import JobChanges
from service.redis_health import RedisHealth
from service.round_trips import RoundTrips
from tests.service.test_redis_health import without_replicas
from tests.worker.jobs import embeddings_job
from worker.contract.jobs import JobState
from worker.contract.record import record_key
from worker.contract.records import Records
from worker.contract.submission import enqueue


def with_changes(url: str, use: Callable[[JobChanges], Awaitable[None]]) -> None:
    """Let a test use what waits for the server; its health is never asked for."""

    async def run() -> None:
        async with AsyncRedis.from_url(url) as redis:
            await use(JobChanges(RoundTrips(redis), RedisHealth(redis), 3600))

    asyncio.run(run())


def queued(redis: Redis, count: int) -> list[str]:
    jobs = [embeddings_job("a") for _ in range(count)]
    for job in jobs:
        enqueue(redis, job)
    return [job.id for job in jobs]


def num_canceled(redis: Redis, job_ids: list[str]) -> int:
    records = [Records(redis).get(job_id) for job_id in job_ids]
    return sum(record is not None and record.state is JobState.CANCELED for record in records)


def test_what_redis_refuses_is_sent_again(redis: Redis, redis_url: str) -> None:
    job_ids = queued(redis, 3)

    async def use(changes: JobChanges) -> None:
        for job_id in job_ids:
            changes.leave(job_id, job_id)
        with without_replicas(redis):
            await changes.send()
            assert num_canceled(redis, job_ids) == 0
        await changes.send()

    with_changes(redis_url, use)
    assert num_canceled(redis, job_ids) == 3


def test_as_many_as_there_are_go_out_some_at_a_time(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_changes, "_AT_ONCE", 2)
    job_ids = queued(redis, 5)

    async def use(changes: JobChanges) -> None:
        for job_id in job_ids:
            changes.leave(job_id, job_id)
        await changes.send()

    with_changes(redis_url, use)
    assert num_canceled(redis, job_ids) == 5


def test_the_oldest_are_given_up_where_too_many_wait(
    redis: Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(job_changes, "_MAX_WAITING", 2)
    first, *others = queued(redis, 3)

    async def use(changes: JobChanges) -> None:
        for job_id in (first, *others):
            changes.leave(job_id, job_id)
        await changes.send()

    with_changes(redis_url, use)
    assert (num_canceled(redis, [first]), num_canceled(redis, others)) == (0, 2)
    assert f"event=job_change_dropped job={first} allowed=2" in caplog.messages


def test_a_change_that_can_never_be_made_does_not_hold_up_others(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    [job_id] = queued(redis, 1)
    redis.set(record_key("broken"), "no record")

    async def use(changes: JobChanges) -> None:
        changes.keep("broken")
        changes.leave(job_id, job_id)
        await changes.send()
        redis.delete(record_key("broken"))
        await changes.send()

    with_changes(redis_url, use)
    assert num_canceled(redis, [job_id]) == 1
    assert caplog.messages == ["event=job_not_changed job=broken"]
