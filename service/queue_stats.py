"""The state of queues and workers, read from Redis when asked for, never counted along.

Knows nothing about HTTP. Blocking: call it in a thread.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError

from worker.contract import workers
from worker.contract.jobs import JobState, Task
from worker.contract.records import queue_key, record_key, running_key
from worker.contract.workers import WorkerState, WorkerStatus


@dataclass(frozen=True, slots=True)
class QueueStats:
    task: Task
    num_queued: int
    num_running: int
    oldest_age_s: float  # of the jobs that wait; 0 where none does


def read_queue(redis: Redis, task: Task) -> QueueStats:
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.llen(queue_key(task))
        pipeline.zcard(running_key(task))
        pipeline.lindex(queue_key(task), 0)
        num_queued, num_running, oldest = pipeline.execute()
    return QueueStats(task, num_queued, num_running, _age_s(redis, oldest))


def _age_s(redis: Redis, job_id: str | None) -> float:
    created_at = None if job_id is None else redis.hget(record_key(job_id), "created_at")
    return 0.0 if created_at is None else max(0.0, time.time() - float(created_at))


class QueueCollector(Collector):
    """`triptych_queue_*`, `triptych_jobs_in_state`, `triptych_worker*` at each scrape."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def collect(self) -> Iterator[Metric]:
        """Without Redis only `triptych_redis_up 0`: a missing series is truer than an old one."""
        try:
            queues = [read_queue(self._redis, task) for task in Task]
            statuses = workers.read_all(self._redis)
        except RedisError:
            yield _redis_up(False)
            return
        yield _redis_up(True)
        yield from _queue_metrics(queues)
        yield from _worker_metrics(statuses)


def _redis_up(is_up: bool) -> Metric:
    return GaugeMetricFamily("triptych_redis_up", "1 if Redis answers.", value=float(is_up))


def _queue_metrics(queues: list[QueueStats]) -> Iterator[Metric]:
    depth = GaugeMetricFamily("triptych_queue_depth", "Jobs that wait.", labels=["task"])
    age = GaugeMetricFamily(
        "triptych_queue_oldest_job_age_seconds", "Age of the longest waiting.", labels=["task"]
    )
    states = GaugeMetricFamily(
        "triptych_jobs_in_state", "Jobs that are not final.", labels=["task", "state"]
    )
    for queue in queues:
        depth.add_metric([queue.task.value], queue.num_queued)
        age.add_metric([queue.task.value], queue.oldest_age_s)
        states.add_metric([queue.task.value, JobState.QUEUED.value], queue.num_queued)
        states.add_metric([queue.task.value, JobState.RUNNING.value], queue.num_running)
    yield from (depth, age, states)


def _worker_metrics(statuses: list[WorkerStatus]) -> Iterator[Metric]:
    count = GaugeMetricFamily("triptych_workers", "Living workers.", labels=["task", "state"])
    for task in Task:
        for state in WorkerState:  # zeros too, so that no series is missing
            of_state = [s for s in statuses if s.task is task and s.state is state]
            count.add_metric([task.value, state.value], len(of_state))
    heartbeat = GaugeMetricFamily(
        "triptych_worker_heartbeat_timestamp_seconds", "Last sign of life.", labels=["worker"]
    )
    for status in statuses:
        heartbeat.add_metric([status.name], status.heartbeat_at)
    yield from (count, heartbeat)
