"""Follow a job: the events of its stream, from any of them on, whichever process asks.

A connection to Redis for each follower, in a blocking read: simpler than one reader for all, whose
set of streams would change under it, and there are no more of them than clients that look at jobs
which are not over yet. Knows nothing of HTTP.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable
from typing import TypeAlias, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.background import end
from service.bursts import BurstLimiter
from service.errors import UnavailableError
from service.job_client import JobClient
from worker.contract.events import Event, FinishedEvent, events_key, parse_event
from worker.contract.record import Record

MAX_FOLLOWERS = 512  # per process; each has a connection to Redis, and one of HTTP
SILENCE_S = 10.0  # of a job, after which its follower is told that there is nothing new

_BEGINNING = "0-0"  # before every event
_RECONNECT_S = 0.5

logger = logging.getLogger(__name__)

Entries: TypeAlias = Iterable[tuple[str, dict[str, str]]]  # of a stream: ids and fields
Stream: TypeAlias = tuple[str, Entries]  # its key, and what it holds


class JobEvents:
    def __init__(self, redis: Redis, jobs: JobClient, bursts: BurstLimiter) -> None:
        """`redis` has a connection for each follower, and waits longer than the silence.

        To be made in the event loop in which it is used.
        """
        self._redis = redis
        self._jobs = jobs
        self._bursts = bursts
        self._num_followers = 0
        self._reads: set[asyncio.Future[list[Event]]] = set()
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def follow(self, job_id: str, after: str | None) -> AsyncGenerator[Event | None]:
        """Give the events after this one, old and new, until `finished`; None for a silence.

        A None comes first, at once: from there on the follower has its place, of which this
        process has MAX_FOLLOWERS; raises UnavailableError where there is none. Ends without
        `finished` when the job is lost, and when the service stops. A Redis that restarts is
        waited for.
        """
        if self._num_followers >= MAX_FOLLOWERS:
            message = f"{self._num_followers} clients follow jobs here; allowed: {MAX_FOLLOWERS}"
            raise UnavailableError("too_many_followers", message)
        self._num_followers += 1
        try:
            yield None
            async for event in self._follow(job_id, after or _BEGINNING):
                yield event
        finally:
            self._num_followers -= 1

    async def past(self, record: Record, after: str | None) -> list[Event]:
        """The events after this one of a job that is over; none where this is its last.

        Where the stream is gone, only the last is left, as the record tells it.
        """
        last, key = after or _BEGINNING, events_key(record.id)
        events = _parsed(cast(Entries, await self._redis.xrange(key, f"({last}")))
        if events or await self._redis.exists(key):
            return events
        end = _end(record)
        return [end] if _order(last) < _order(end.id) else []

    @property
    def is_stopping(self) -> bool:
        return self._stopped.done()

    def stop(self) -> None:
        """End every following: clients come back and go on from their last event."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def aclose(self) -> None:
        """End the reads that are left: one that forgot its cancel would outlive its follower."""
        await end(self._reads)

    async def _follow(self, job_id: str, last: str) -> AsyncIterator[Event | None]:
        while not self.is_stopping:
            try:
                events = await self._next(job_id, last)
            except RedisError as error:
                logger.warning(
                    "event=follow_disturbed job=%s error=%s", job_id, type(error).__name__
                )
                await asyncio.sleep(_RECONNECT_S)
                yield None
                continue
            if events is None:
                return
            for event in events:
                yield event
                last = event.id
                if isinstance(event, FinishedEvent):
                    return
            if not events:
                yield None

    async def _next(self, job_id: str, last: str) -> list[Event] | None:
        """What comes after this one; nothing for a silence, None where nothing can come."""
        events = await self._unless_stopped(self._read(job_id, last))
        if events is None or events:
            return events
        record = await self._jobs.status(job_id)
        if record is None:
            return None
        return await self.past(record, last) or None if record.state.is_final else []

    async def _read(self, job_id: str, last: str) -> list[Event]:
        """Wait for events; none after a silence."""
        reply = await self._redis.xread({events_key(job_id): last}, block=int(1e3 * SILENCE_S))
        await self._bursts.admit()  # a step of many rows is news for as many followers
        return [event for _, entries in cast(list[Stream], reply) for event in _parsed(entries)]

    async def _unless_stopped(self, read: Awaitable[list[Event]]) -> list[Event] | None:
        task = asyncio.ensure_future(read)
        self._reads.add(task)
        task.add_done_callback(self._forget)
        try:
            # no follower waits for its read to have ended: that may forget its cancel
            either: set[asyncio.Future[list[Event]] | asyncio.Future[None]] = {task, self._stopped}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return None if self.is_stopping else task.result()
        finally:
            task.cancel()

    def _forget(self, read: asyncio.Future[list[Event]]) -> None:
        self._reads.discard(read)
        if not read.cancelled():
            read.exception()  # where its follower has left nobody asks, and asyncio would log it


def _parsed(entries: Entries) -> list[Event]:
    return [parse_event(entry_id, fields) for entry_id, fields in entries]


def _end(record: Record) -> FinishedEvent:
    """As the stream had it; the server dated both by one clock."""
    assert record.finished_at is not None, "this is a bug: a final record has its time"
    return FinishedEvent(id=f"{int(1e3 * record.finished_at)}-0", state=record.state)


def _order(event_id: str) -> tuple[int, int]:
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)
