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

from service.redis_health import PROBE_KEY
from worker.contract import workers
from worker.contract.jobs import JobState, Task
from worker.contract.record import running_key, waiting_key
from worker.contract.sharing_script import RESULTS_BYTES, RESULTS_KEY
from worker.contract.workers import WorkerState, WorkerStatus


@dataclass(frozen=True, slots=True)
class QueueStats:
    task: Task
    num_queued: int
    num_running: int
    oldest_age_s: float  # of the jobs that wait; 0 where none does


def read_queue(redis: Redis, task: Task) -> QueueStats:
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.zcard(waiting_key(task))
        pipeline.zcard(running_key(task))
        pipeline.zrange(waiting_key(task), 0, 0, withscores=True)
        num_queued, num_running, oldest = pipeline.execute()
    age_s = max((time.time() - created_at for _, created_at in oldest), default=0.0)
    return QueueStats(task, num_queued, num_running, max(0.0, age_s))


class QueueCollector(Collector):
    """`triptych_queue_*`, `triptych_jobs_in_state`, `triptych_worker*` at each scrape."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def collect(self) -> Iterator[Metric]:
        """Without Redis only `triptych_redis_up 0`: a missing series is truer than an old one."""
        try:
            queues = [read_queue(self._redis, task) for task in Task]
            statuses = workers.read_all(self._redis)
            cache_bytes = int(self._redis.hget(RESULTS_KEY, RESULTS_BYTES) or 0)
        except RedisError:
            yield _redis_up(False)
            return
        yield _redis_up(True)
        yield _redis_writable(self._redis)
        yield GaugeMetricFamily(
            "triptych_result_cache_bytes", "What kept results take in Redis.", value=cache_bytes
        )
        yield from _queue_metrics(queues)
        yield from _worker_metrics(statuses)


def _redis_up(is_up: bool) -> Metric:
    return GaugeMetricFamily("triptych_redis_up", "1 if Redis answers.", value=float(is_up))


def _redis_writable(redis: Redis) -> Metric:
    try:
        redis.setrange(PROBE_KEY, 0, "")
    except RedisError:
        is_writable = False
    else:
        is_writable = True
    return GaugeMetricFamily(
        "triptych_redis_writable", "1 if Redis takes writes.", value=float(is_writable)
    )


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
