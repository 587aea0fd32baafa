"""Who waits, and in what order, read from Redis."""

from typing import cast

from redis import Redis

from worker.contract.jobs import Task
from worker.contract.record import as_text, queue_key

_ARRIVAL_LENGTH = 17  # an entry is the time of arrival, the id, the priority and the caller


def waiting(redis: Redis, task: Task) -> list[str]:
    """The ids in the order of each model's turns; RQ's list has the same, in any order."""
    keys = sorted(as_text(key) for key in redis.scan_iter(f"triptych:turns:{task}:*"))
    entries = [as_text(entry) for key in keys for entry in _members(redis, key)]
    ids = [entry[_ARRIVAL_LENGTH:].split(":")[0] for entry in entries]
    assert sorted(rq_list(redis, task)) == sorted(ids)
    return ids


def _members(redis: Redis, key: str) -> list[bytes | str]:
    return cast(list[bytes | str], redis.zrange(key, 0, -1))


def rq_list(redis: Redis, task: Task) -> list[str]:
    return [as_text(entry) for entry in redis.lrange(queue_key(task), 0, -1)]
