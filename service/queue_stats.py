"""The state of queues, workers, models and Redis itself, read at each scrape, never counted along.

One round trip of three commands, however many workers there are, and one more for the cards of
models that are new. Knows nothing about HTTP. Blocking: call it in a thread.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError

from service.redis_health import PROBE_KEY
from worker.contract import model_cards, workers
from worker.contract.jobs import JobState, Task
from worker.contract.model_cards import ModelCard
from worker.contract.record import as_text
from worker.contract.record_scripts import QUARANTINED_KEY
from worker.contract.script_prelude import READING, RUNNING_PREFIX, WAITING_PREFIX
from worker.contract.sharing_script import NUM_EXPIRED_KEY, RESULTS_BYTES, RESULTS_KEY
from worker.contract.workers import WorkerState, WorkerStatus

# Of Redis' INFO: whole it is 200 lines, and to read them took a third of a scrape's reading.
_INFO_SECTIONS = ("memory", "clients", "stats", "persistence")
_INFO_FIELDS = (
    *("used_memory", "maxmemory", "connected_clients", "evicted_keys"),
    *("aof_enabled", "aof_last_write_status"),
)


def _lua(texts: Sequence[str]) -> str:
    return ", ".join(f"'{text}'" for text in texts)


# ARGV: the tasks. Returns what the queues have, by task; how many of their jobs expired, by task;
# how many are quarantined; the bytes of kept results; and the values of INFO, where we may ask.
_READ = (
    READING
    + f"""
local queues = {{}}
for i, task in ipairs(ARGV) do
  local waiting = '{WAITING_PREFIX}' .. task
  local num_queued, oldest = redis.call('ZCARD', waiting), false
  if num_queued > 0 then oldest = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2] end
  queues[i] = {{num_queued, redis.call('ZCARD', '{RUNNING_PREFIX}' .. task), oldest}}
end
local info, told = redis.pcall('INFO', {_lua(_INFO_SECTIONS)}), {{}}
if type(info) == 'string' then
  for i, name in ipairs({{{_lua(_INFO_FIELDS)}}}) do
    told[i] = string.match(info, '\\n' .. name .. ':([^\\r\\n]*)') or ''
  end
end
return {{
  queues,
  redis.call('HMGET', '{NUM_EXPIRED_KEY}', unpack(ARGV)),
  redis.call('ZCARD', '{QUARANTINED_KEY}'),
  redis.call('HGET', '{RESULTS_KEY}', '{RESULTS_BYTES}'),
  told,
}}
"""
)

_Text: TypeAlias = bytes | str
_QueueReply: TypeAlias = tuple[int, int, _Text | None]  # waiting, running, when the oldest came
_Reply: TypeAlias = tuple[
    Sequence[_QueueReply], Sequence[_Text | None], int, _Text | None, Sequence[_Text]
]


@dataclass(frozen=True, slots=True)
class QueueStats:
    task: Task
    num_queued: int
    num_running: int
    oldest_age_s: float  # of the jobs that wait; 0 where none does


@dataclass(frozen=True, slots=True)
class _Snapshot:
    queues: Sequence[QueueStats]
    num_expired: Mapping[Task, int]  # jobs that were never begun
    statuses: Sequence[WorkerStatus]
    cards: Sequence[ModelCard]
    num_quarantined: int
    cache_bytes: int
    server: Mapping[str, str]  # of Redis' INFO; empty where we may not ask for it
    is_writable: bool


class QueueCollector(Collector):
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._cards: Mapping[str, ModelCard] = {}  # by digest; a card never changes

    def collect(self) -> Iterator[Metric]:
        """Without Redis only `triptych_redis_up 0`: a missing series is truer than an old one."""
        try:
            snapshot = self._read()
        except RedisError:
            yield _gauge("redis_up", "1 if Redis answers.", 0)
            return
        yield _gauge("redis_up", "1 if Redis answers.", 1)
        yield _gauge("redis_writable", "1 if Redis takes writes.", snapshot.is_writable)
        yield from _queue_metrics(snapshot)
        yield from _worker_metrics(snapshot.statuses)
        yield _model_info(snapshot.cards)
        yield from _server_metrics(snapshot.server)

    def _read(self) -> _Snapshot:
        now = time.time()
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.eval(_READ, 0, *Task)
            pipeline.eval(workers.READ, 0)
            pipeline.setrange(PROBE_KEY, 0, "")
            reply, found, probe = pipeline.execute(raise_on_error=False)
        for each in (reply, found):
            if isinstance(each, RedisError):
                raise each
        of_queues, num_expired, num_quarantined, cache_bytes, told = cast(_Reply, reply)
        statuses = workers.living(cast(workers.Reply, found))
        return _Snapshot(
            queues=[_queue_stats(task, of_queues[i], now) for i, task in enumerate(Task)],
            num_expired={task: int(num or 0) for task, num in zip(Task, num_expired, strict=True)},
            statuses=statuses,
            cards=self._cards_of(statuses),
            num_quarantined=num_quarantined,
            cache_bytes=int(cache_bytes or 0),
            # shorter where we may not ask, and without a value where the server has none
            server={
                name: as_text(said) for name, said in zip(_INFO_FIELDS, told, strict=False) if said
            },
            is_writable=not isinstance(probe, RedisError),
        )

    def _cards_of(self, statuses: Sequence[WorkerStatus]) -> Sequence[ModelCard]:
        digests = {m.card for status in statuses for m in status.models if m.card is not None}
        new = model_cards.read(self._redis, sorted(digests - self._cards.keys()))
        self._cards = {d: card for d, card in {**self._cards, **new}.items() if d in digests}
        return list(self._cards.values())


def _queue_stats(task: Task, reply: _QueueReply, now: float) -> QueueStats:
    num_queued, num_running, oldest = reply
    age_s = 0.0 if oldest is None else max(0.0, now - float(oldest))
    return QueueStats(task, num_queued, num_running, age_s)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"triptych_{name}", text, value=float(value))


def _queue_metrics(snapshot: _Snapshot) -> Iterator[Metric]:
    depth = GaugeMetricFamily("triptych_queue_depth", "Jobs that wait.", labels=["task"])
    age = GaugeMetricFamily(
        "triptych_queue_oldest_job_age_seconds", "Age of the longest waiting.", labels=["task"]
    )
    states = GaugeMetricFamily(
        "triptych_jobs_in_state", "Jobs that are not final.", labels=["task", "state"]
    )
    expired = CounterMetricFamily(
        "triptych_queue_expired_jobs",
        "Jobs whose deadline came while they waited; no worker counts them as finished.",
        labels=["task"],
    )
    for task, num in snapshot.num_expired.items():
        expired.add_metric([task.value], num)
    for queue in snapshot.queues:
        depth.add_metric([queue.task.value], queue.num_queued)
        age.add_metric([queue.task.value], queue.oldest_age_s)
        states.add_metric([queue.task.value, JobState.QUEUED.value], queue.num_queued)
        states.add_metric([queue.task.value, JobState.RUNNING.value], queue.num_running)
    yield from (depth, age, states, expired)
    yield _gauge(
        "quarantined_jobs",
        "Jobs that failed as every worker that ran them died, while they are kept.",
        snapshot.num_quarantined,
    )
    yield _gauge("result_cache_bytes", "What kept results take in Redis.", snapshot.cache_bytes)


def _worker_metrics(statuses: Sequence[WorkerStatus]) -> Iterator[Metric]:
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


def _model_info(cards: Sequence[ModelCard]) -> Metric:
    names = ["model", "task", "family", "dtype", "device"]
    info = GaugeMetricFamily("triptych_model_info", "1 for a model that is served.", labels=names)
    said = {(card.name, card.task.value, card.family, card.dtype, card.device) for card in cards}
    for values in sorted(said):
        info.add_metric(values, 1)
    return info


def _server_metrics(server: Mapping[str, str]) -> Iterator[Metric]:
    """What Redis tells of itself; what it does not tell, or is not there, is absent."""
    for name, key, text in (
        ("memory_used_bytes", "used_memory", "What Redis has of its memory."),
        ("memory_max_bytes", "maxmemory", "What Redis may have; absent where it may have all."),
        ("connected_clients", "connected_clients", "Connections to Redis."),
    ):
        if value := float(server.get(key, 0)):
            yield _gauge(f"redis_{name}", text, value)
    if (num_evicted := server.get("evicted_keys")) is not None:
        yield CounterMetricFamily(
            "triptych_redis_evicted_keys",
            "Keys that Redis has thrown away for lack of memory: records of jobs among them.",
            value=float(num_evicted),
        )
    if server.get("aof_enabled") == "1" and (said := server.get("aof_last_write_status")):
        text = "1 if the last write to Redis' append-only file succeeded; absent without one."
        yield _gauge("redis_aof_write_ok", text, said == "ok")
