"""Submit, wait for, read and cancel jobs: all that the HTTP side does with Redis.

Waiting is event-driven: one subscription per process wakes the waiters of the jobs that ended. A
waiter registers first and reads the record after, so no wake-up is lost; a slow poll is the net
under a broken subscription. Writes run the contract's own synchronous code in a thread.
"""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import to_thread
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from service.errors import QueueFullError, SyncWaitError, lost_error
from service.queue_stats import read_queue
from worker.contract.jobs import JobState, Task
from worker.contract.records import (
    FINISHED_CHANNEL,
    AnyJob,
    Record,
    Records,
    enqueue,
    parse_record,
    queue_key,
    record_key,
)

logger = logging.getLogger(__name__)

_POLL_S = 2.0  # the net under the subscription, not the way
_SILENCE_S = 10.0  # longer on the subscription, and it is asked whether it lives
_RECONNECT_S = 0.5
_SUBMIT_WAIT_S = 10.0  # two socket timeouts: a Redis that hangs answers 503, not never
_MAX_RETRY_AFTER_S = 30  # soon enough for a queue that empties; OpenAI's client obeys up to 120


class JobClient:
    def __init__(
        self, redis: AsyncRedis, blocking_redis: Redis, records: Records, max_queue_depth: int
    ) -> None:
        self._redis = redis
        self._blocking_redis = blocking_redis
        self._records = records
        self._max_queue_depth = max_queue_depth
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._is_stopping = False
        self._submit_locks = {task: asyncio.Lock() for task in Task}

    async def submit(self, job: AnyJob) -> None:
        """Queue the job; raises QueueFullError when as many wait as may.

        One submit at a time per task: depth and entry are two round trips, and one after the
        other they never put more on the queue than may wait.
        """
        lock = self._submit_locks[job.task]
        try:
            async with asyncio.timeout(_SUBMIT_WAIT_S):
                await lock.acquire()
        except TimeoutError as error:
            raise RedisConnectionError("submits stand in line for too long") from error
        try:
            await to_thread.run_sync(self._submit, job)
        finally:
            lock.release()
        logger.info("event=submitted job=%s task=%s model=%s", job.id, job.task, job.model)

    def _submit(self, job: AnyJob) -> None:
        depth = self._blocking_redis.llen(queue_key(job.task))
        if depth >= self._max_queue_depth:
            # Little's law: a place frees up every oldest_age / depth seconds
            age_s = read_queue(self._blocking_redis, job.task).oldest_age_s
            retry_after_s = min(max(1, math.ceil(age_s / depth)), _MAX_RETRY_AFTER_S)
            raise QueueFullError(job.task.value, depth, retry_after_s)
        enqueue(self._blocking_redis, job, self._records)

    async def wait(self, job_id: str, timeout_s: float) -> Record:
        """Return the final record; raises SyncWaitError when the time is over, or the service's.

        A Redis that restarts meanwhile is waited for: the job is in its file.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        with self._registered(job_id) as ended:
            while True:
                ended.clear()
                record = await self._final(job_id)
                if record is not None:
                    return record
                remaining_s = end - loop.time()
                if remaining_s <= 0 or self._is_stopping:
                    raise SyncWaitError(job_id, timeout_s - remaining_s)
                await _until(ended, min(remaining_s, _POLL_S))

    def stop_waiting(self) -> None:
        """End every wait: better an answer with the job's id than a closed connection."""
        self._is_stopping = True
        self._wake(*self._waiters)

    async def get(self, job_id: str) -> Record | None:
        fields = await self._redis.hgetall(record_key(job_id))
        return parse_record({str(name): str(value) for name, value in fields.items()})

    async def queue_position(self, record: Record) -> int | None:
        """How many jobs are before this one; None unless it waits."""
        if record.state is not JobState.QUEUED:
            return None
        position = await self._redis.lpos(queue_key(record.task), record.id)
        return position if isinstance(position, int) else None

    async def cancel(self, job_id: str) -> Record | None:
        return await to_thread.run_sync(self._records.cancel, job_id)

    async def listen(self) -> None:
        """Wake waiters until canceled; the one task that reads the subscription."""
        while True:
            try:
                await self._listen_once()
            except (RedisError, OSError) as error:
                logger.warning("event=subscription_lost error=%s", type(error).__name__)
                await asyncio.sleep(_RECONNECT_S)

    async def _listen_once(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(FINISHED_CHANNEL)
            self._wake(*self._waiters)  # whose job may have ended unheard
            is_asked = False
            while True:
                message = await pubsub.get_message(timeout=_SILENCE_S)
                if message is None and is_asked:
                    raise RedisConnectionError("the subscription is silent")
                is_asked = message is None
                if message is None:
                    await pubsub.ping()
                elif message["type"] == "message":
                    self._wake(message["data"])

    def _wake(self, *job_ids: str) -> None:
        for job_id in job_ids:
            for ended in self._waiters.get(job_id, ()):
                ended.set()

    @contextmanager
    def _registered(self, job_id: str) -> Iterator[asyncio.Event]:
        ended = asyncio.Event()
        self._waiters[job_id].add(ended)
        try:
            yield ended
        finally:
            self._waiters[job_id].discard(ended)
            if not self._waiters[job_id]:
                del self._waiters[job_id]

    async def _final(self, job_id: str) -> Record | None:
        """The record once it is final; raises when there is none any more."""
        try:
            state = await self._redis.hget(record_key(job_id), "state")
            if state is not None and not JobState(str(state)).is_final:
                return None  # without reading the inputs that a waiting job still holds
            record = await self.get(job_id)
        except RedisError as error:
            logger.warning("event=wait_disturbed job=%s error=%s", job_id, type(error).__name__)
            return None
        if record is None:
            raise lost_error(job_id)
        return record


async def _until(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
