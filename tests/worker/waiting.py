"""Who waits, and in what order, read from Redis."""

from typing import cast

from redis import Redis

from worker.contract.jobs import Task
from worker.contract.record import as_text, queue_key

_ARRIVAL_LENGTH = 17  # an entry is the time of arrival, the id, the priority and the caller


def waiting(redis: Redis, task: Task) -> list[str]:
    """The ids in the order of each model's turns; RQ's list has the same, in any order."""
    keys = sorted(as_text(key) for key in redis.scan_iter(f"triptych:turns:{task}:*"))
    with redis.pipeline(transaction=True) as reads:  # a worker may claim between two
        for key in keys:
            reads.zrange(key, 0, -1)
        reads.lrange(queue_key(task), 0, -1)
        *turns, listed = cast(list[list[bytes | str]], reads.execute())
    ids = [as_text(entry)[_ARRIVAL_LENGTH:].split(":")[0] for turn in turns for entry in turn]
    assert sorted(map(as_text, listed)) == sorted(ids)
    return ids


def rq_list(redis: Redis, task: Task) -> list[str]:
    return [as_text(entry) for entry in redis.lrange(queue_key(task), 0, -1)]
