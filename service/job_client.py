"""Submit, wait for, read and cancel jobs: what the HTTP side does with their records.

Waiting is event-driven: one subscription per process wakes the waiters of the jobs that ended. Who
waits listens before the job is submitted, so no wake-up is lost; a slow poll is the fallback while
the subscription is broken. Following a job's steps is for `events`.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.background import repeat
from service.bursts import BurstLimiter
from service.errors import (
    EndDelayedError,
    JobNotFoundError,
    KeyReusedError,
    NotFinishedError,
    QueueFullError,
    SyncWaitError,
    lost_error,
)
from service.job_changes import JobChanges
from service.long_work import work_through
from service.redis_health import RedisHealth
from service.round_trips import RoundTrips
from worker.contract.jobs import RESULT, ClassifyJob, EmbeddingsJob, ImageJob, JobState
from worker.contract.record import (
    FIELDS_BUT_RESULT,
    STATUS_FIELDS,
    AnyJob,
    AnyResult,
    Record,
    parse_record,
    record_key,
)
from worker.contract.record_scripts import CANCEL, FORGET, POSITION
from worker.contract.records import FINISHED_CHANNEL
from worker.contract.submission import (
    KeyReused,
    Reuse,
    Submission,
    Terms,
    TooDeep,
    parse_submission,
    submission,
    withdrawal,
)

logger = logging.getLogger(__name__)

_POLL_S = 2.0  # in case the subscription is broken and nobody has noticed yet
_UNWATCHED_S = 0.05  # a job that is over by then has not paid for a watch of its client
_SILENCE_S = 10.0  # longer on the subscription, and it is asked whether it lives
_RECONNECT_S = 0.5
_MAX_RETRY_AFTER_S = 30  # soon enough for a queue that empties; OpenAI's client obeys up to 120

Leaving = Callable[[], Coroutine[None, None, None]]  # ends when the client has left
Wait = Callable[[float, Leaving | None], Awaitable[Record]]


class ClientLeftError(Exception):
    """Raised where nobody waits any more."""


class JobClient:
    def __init__(
        self,
        redis: Redis,
        round_trips: RoundTrips,
        health: RedisHealth,
        changes: JobChanges,
        bursts: BurstLimiter,
        result_ttl_s: float,
    ) -> None:
        self._health = health
        self._changes = changes
        self._bursts = bursts
        self._redis = redis
        self._round_trips = round_trips
        self._ttl_s = int(result_ttl_s)
        self._ends: dict[str, set[asyncio.Event]] = {}  # by the id of the job that is waited for
        self._is_stopping = False

    async def submit(self, job: AnyJob, terms: Terms) -> Submission:
        """Queue the job on these terms, unless they find it a run or an answer that there is.

        Raises QueueFullError when as many wait as may, and KeyReusedError.
        """
        self._health.check_answers()
        call = await work_through(_input_bytes(job), lambda: submission(job, terms))
        try:
            reply = await self._round_trips.run_script(call.script, call.args)
        except RedisTimeoutError:
            # queued, attached to another or neither: its client is not told of it
            self._changes.leave(job.id, job.id, "" if terms.key is None else terms.key.digest)
            raise
        match parse_submission(cast(Sequence[int | str], reply)):
            case TooDeep() as full:
                retry_after_s = _retry_after_s(full, terms.max_depth or 0)
                raise QueueFullError(job.task.value, full.depth, full.num_of_caller, retry_after_s)
            case KeyReused():
                raise KeyReusedError
            case submitted:
                return submitted

    async def withdraw_answer(self, job_id: str, reuse: Reuse) -> None:
        """Undo a submit that was answered by a result of no use; nobody else gets that either."""
        call = withdrawal(job_id, reuse)
        await self._round_trips.run_script(call.script, call.args)

    @contextmanager
    def listening(self, job_id: str, may_be_over: bool = False) -> Iterator[Wait]:
        """Listen for the end of a job; the value waits for it.

        One that is about to be submitted ends within; one that `may_be_over` is looked at first.
        It takes the seconds to wait, and what ends when the client has left, or None where the
        client may leave; it returns the final record. Raises SyncWaitError when the time is over,
        or the service's, and ClientLeftError. A Redis that restarts meanwhile is waited for: the
        job is in its file. Raises EndDelayedError where that takes long, or Redis takes no writes.
        """
        ended = asyncio.Event()
        if may_be_over:
            ended.set()
        waiters = self._ends.setdefault(job_id, set())
        waiters.add(ended)
        try:
            yield lambda timeout_s, leaving: self._wait(job_id, ended, timeout_s, leaving)
        finally:
            waiters.remove(ended)
            if not waiters:
                del self._ends[job_id]

    async def _wait(
        self, job_id: str, ended: asyncio.Event, timeout_s: float, leaving: Leaving | None
    ) -> Record:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        await _until(ended, min(timeout_s, _UNWATCHED_S))
        if ended.is_set() and (record := await self._final(job_id)) is not None:
            return record
        with _watching(leaving, ended) as has_left:
            while True:
                await _until(ended, min(end - loop.time(), _POLL_S))
                ended.clear()
                record = await self._final(job_id)
                if record is not None:
                    return record
                if has_left():
                    raise ClientLeftError
                if (refusal := self._health.no_job_ends) is not None:
                    raise EndDelayedError(job_id, refusal.value)
                if loop.time() >= end or self._is_stopping:
                    raise SyncWaitError(job_id, timeout_s - (end - loop.time()))

    def stop_waiting(self) -> None:
        """End every wait: better an answer with the job's id than a closed connection."""
        self._is_stopping = True
        self.wake_all()

    async def get(self, job_id: str) -> Record | None:
        return await self._read(job_id, STATUS_FIELDS)

    async def status(self, job_id: str) -> Record | None:
        """Read a record without its result, which can be megabytes."""
        return await self._read(job_id, FIELDS_BUT_RESULT)

    async def _read(self, job_id: str, fields: Sequence[str]) -> Record | None:
        return await self._parsed(fields, await self._values(job_id, fields))

    async def _values(self, job_id: str, fields: Sequence[str]) -> Sequence[str | None]:
        self._health.check_answers()
        reply = await self._round_trips.execute("HMGET", record_key(job_id), *fields)
        return cast(Sequence[str | None], reply)

    async def _parsed(self, fields: Sequence[str], values: Sequence[str | None]) -> Record | None:
        await self._bursts.admit()  # a batch of jobs ends at once, and many are looked at
        named = zip(fields, values, strict=True)
        return parse_record({name: value for name, value in named if value is not None})

    async def queue_position(self, record: Record) -> int | None:
        """How many jobs are before this one; None unless it waits."""
        if record.state is not JobState.QUEUED:
            return None
        position = await self._round_trips.run_script(POSITION, [record.id])
        return position if isinstance(position, int) else None

    async def cancel(self, job_id: str) -> None:
        """End a queued job at once, ask a running one to stop; final ones stay as they are."""
        self._health.check_answers()
        await self._round_trips.run_script(CANCEL, [job_id, self._ttl_s])

    async def forget(self, job_id: str) -> AnyResult | None:
        """Forget a job that is over; returns its result if no other job can have the same files.

        Raises NotFinishedError, and JobNotFoundError.
        """
        self._health.check_answers()
        reply = await self._round_trips.run_script(FORGET, [job_id])
        if reply is None:
            raise JobNotFoundError(job_id)
        was, *result = cast(Sequence[str], reply)
        if was == "running":
            raise NotFinishedError(job_id, "cancel it first")
        return RESULT.validate_json(result[0]) if result[0] else None

    async def listen(self) -> None:
        """Wake waiters until canceled; the one task that reads the subscription."""
        await repeat(self._listen, _RECONNECT_S, "subscription_lost")

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(FINISHED_CHANNEL)
            self.wake_all()  # whose job may have ended unheard
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
        for ended in self._ends.get(job_id, ()):
            ended.set()

    def wake_all(self) -> None:
        """Have every waiter look how its job stands."""
        for job_id in self._ends:
            self._wake(job_id)

    async def _final(self, job_id: str) -> Record | None:
        """The record once it is final; raises when there is none any more."""
        try:
            async with asyncio.timeout(_POLL_S):  # for Redis alone: what it gave is not asked again
                values = await self._values(job_id, STATUS_FIELDS)
        except (RedisError, TimeoutError) as error:
            logger.warning("event=wait_disturbed job=%s error=%s", job_id, type(error).__name__)
            return None
        record = await self._parsed(STATUS_FIELDS, values)
        if record is None:
            raise lost_error(job_id)
        return record if record.state.is_final else None


@contextmanager
def _watching(leaving: Leaving | None, ended: asyncio.Event) -> Iterator[Callable[[], bool]]:
    """Wake who waits when the client leaves; the value says whether it has."""
    if leaving is None:
        yield lambda: False
        return
    watch = asyncio.create_task(leaving())
    watch.add_done_callback(lambda _: ended.set())
    try:
        yield watch.done
    finally:
        watch.cancel()


async def _until(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return


def _input_bytes(job: AnyJob) -> int:
    """About how long a job's images or texts are."""
    match job:
        case ClassifyJob():
            return sum(map(len, job.images))
        case EmbeddingsJob():
            return sum(map(len, job.texts))
        case ImageJob():
            return 0


def _retry_after_s(full: TooDeep, max_depth: int) -> int:
    """Little's law: a place frees up every oldest_age / depth seconds.

    Where others have got in beyond the limit, as many more are to leave before the caller gets one.
    """
    created_at = full.oldest_created_at
    age_s = 0.0 if created_at is None else time.time() - created_at
    num_to_leave = full.depth - max_depth + 1
    return min(max(1, math.ceil(num_to_leave * age_s / full.depth)), _MAX_RETRY_AFTER_S)
