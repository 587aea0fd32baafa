"""Submit, wait for, read and cancel jobs: what the HTTP side does with their records.

Waiting is event-driven: one subscription per process wakes the waiters of the jobs that ended. Who
waits listens before the job is submitted, so no wake-up is lost; a slow poll is the fallback while
the subscription is broken. Following a job's steps is for `events`.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from anyio import to_thread
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from service.background import repeat
from service.errors import QueueFullError, SyncWaitError, lost_error
from service.round_trips import RoundTrips
from worker.contract.jobs import JobState
from worker.contract.records import (
    FINISHED_CHANNEL,
    STATUS_FIELDS,
    AnyJob,
    Record,
    Records,
    parse_record,
    queue_key,
    record_key,
)
from worker.contract.submission import TooDeep, parse_submission, submission

logger = logging.getLogger(__name__)

_POLL_S = 2.0  # in case the subscription is broken and nobody has noticed yet
_SILENCE_S = 10.0  # longer on the subscription, and it is asked whether it lives
_RECONNECT_S = 0.5
_MAX_RETRY_AFTER_S = 30  # soon enough for a queue that empties; OpenAI's client obeys up to 120

Wait = Callable[[float], Awaitable[Record]]


class JobClient:
    def __init__(self, redis: Redis, records: Records, max_queue_depth: int) -> None:
        """`records` are for what is rare, in a thread."""
        self._redis = redis
        self._round_trips = RoundTrips(redis)
        self._records = records
        self._max_queue_depth = max_queue_depth
        self._ends: dict[str, asyncio.Event] = {}  # by the id of the job that is waited for
        self._is_stopping = False

    async def submit(self, job: AnyJob) -> None:
        """Queue the job; raises QueueFullError when as many wait as may."""
        call = submission(job, self._max_queue_depth)
        reply = await self._round_trips.run_script(call.script, call.args)
        answer = parse_submission(cast(Sequence[int | str], reply))
        if isinstance(answer, TooDeep):
            raise QueueFullError(job.task.value, answer.depth, _retry_after_s(answer))

    @contextmanager
    def listening(self, job_id: str) -> Iterator[Wait]:
        """Listen for the end of a job that is about to be submitted; the value waits for it.

        It takes the seconds to wait, and returns the final record. Raises SyncWaitError when the
        time is over, or the service's. A Redis that restarts meanwhile is waited for: the job is
        in its file.
        """
        ended = self._ends[job_id] = asyncio.Event()
        try:
            yield lambda timeout_s: self._wait(job_id, ended, timeout_s)
        finally:
            del self._ends[job_id]

    async def _wait(self, job_id: str, ended: asyncio.Event, timeout_s: float) -> Record:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while True:
            await _until(ended, min(end - loop.time(), _POLL_S))
            ended.clear()
            record = await self._final(job_id)
            if record is not None:
                return record
            if loop.time() >= end or self._is_stopping:
                raise SyncWaitError(job_id, timeout_s - (end - loop.time()))

    def stop_waiting(self) -> None:
        """End every wait: better an answer with the job's id than a closed connection."""
        self._is_stopping = True
        self._wake_all()

    async def get(self, job_id: str) -> Record | None:
        reply = await self._round_trips.execute("HMGET", record_key(job_id), *STATUS_FIELDS)
        values = zip(STATUS_FIELDS, cast(Sequence[str | None], reply), strict=True)
        return parse_record({name: value for name, value in values if value is not None})

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
        await repeat(self._listen, _RECONNECT_S, "subscription_lost")

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(FINISHED_CHANNEL)
            self._wake_all()  # whose job may have ended unheard
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

    def _wake(self, job_id: str) -> None:
        ended = self._ends.get(job_id)
        if ended is not None:
            ended.set()

    def _wake_all(self) -> None:
        for ended in self._ends.values():
            ended.set()

    async def _final(self, job_id: str) -> Record | None:
        """The record once it is final; raises when there is none any more."""
        try:
            record = await self.get(job_id)
        except RedisError as error:
            logger.warning("event=wait_disturbed job=%s error=%s", job_id, type(error).__name__)
            return None
        if record is None:
            raise lost_error(job_id)
        return record if record.state.is_final else None


async def _until(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return


def _retry_after_s(full: TooDeep) -> int:
    """Little's law: a place frees up every oldest_age / depth seconds."""
    created_at = full.oldest_created_at
    age_s = 0.0 if created_at is None else time.time() - created_at
    return min(max(1, math.ceil(age_s / full.depth)), _MAX_RETRY_AFTER_S)
