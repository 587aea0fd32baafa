"""Whether Redis takes writes, and the answer where it does not.

It may be full, lose its disk, be a replica, read its file after a start, or not be there at all.
Then jobs cannot be queued, and except where it is full those that run cannot end. A probe a second
knows, for those who wait for a job: they would hear nothing. Knows nothing of jobs.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.background import repeat
from service.errors import UnavailableError
from worker.contract.redis_refusals import Refusal, refusal_of

logger = logging.getLogger(__name__)

# `SETRANGE key 0 ""` asks for leave to write, and writes nothing: no bytes to a key that is not
# there. It is refused for whatever reason a write is, and leaves no trace in the append-only file.
PROBE_KEY = "triptych:probe"
PROBE_TIMEOUT_S = 2.0  # a server that writes its file may be silent for a second

_INTERVAL_S = 1.0
_RETRY_S = 0.25  # where it took none, so that nobody waits for long once it does
_PATIENCE_S = 3.0  # a restart is over by then, and who waits need not know of it

_MESSAGES = {
    Refusal.FULL: "the job store is full, and takes no jobs for now",
    Refusal.READ_ONLY: "the job store takes no writes for now",
    Refusal.UNAVAILABLE: "the job store cannot be reached for now",
}


def unavailable(refusal: Refusal) -> UnavailableError:
    return UnavailableError(refusal.value, _MESSAGES[refusal])


@dataclass(frozen=True, slots=True)
class _Outage:
    refusal: Refusal
    is_silent: bool  # it does not even say no
    can_jobs_end: bool
    since: float  # by the monotonic clock: the first probe that failed


class RedisHealth:
    def __init__(self, redis: Redis) -> None:
        """`redis` is for the probes alone, and gives up after `PROBE_TIMEOUT_S`."""
        self._redis = redis
        self._outage: _Outage | None = None

    @property
    def refusal(self) -> Refusal | None:
        """What the last probe met; None where Redis takes writes."""
        return None if self._outage is None else self._outage.refusal

    @property
    def takes_job_ends(self) -> bool:
        """Whether jobs could end at the last probe: also a server that is full takes that."""
        return self._outage is None or self._outage.can_jobs_end

    @property
    def no_job_ends(self) -> Refusal | None:
        """Why no job can end, for longer than a restart takes; None where they can."""
        outage = self._outage
        if outage is None or outage.can_jobs_end:
            return None
        is_long = time.monotonic() - outage.since >= _PATIENCE_S
        return outage.refusal if is_long else None

    def check_answers(self) -> None:
        """Raise at once where Redis is silent: asking it would take as long as its timeout."""
        if self._outage is not None and self._outage.is_silent:
            raise RedisTimeoutError("the server is silent")

    async def watch(self, when_no_job_ends: Callable[[], None]) -> NoReturn:
        """Probe until canceled; calls this again and again while no job can end."""
        await repeat(lambda: self._watch(when_no_job_ends), _RETRY_S, "redis_not_probed")

    async def _watch(self, when_no_job_ends: Callable[[], None]) -> None:
        await self._probe()
        if self.no_job_ends is not None:
            when_no_job_ends()
        if self._outage is None:
            await asyncio.sleep(_INTERVAL_S)

    async def _probe(self) -> None:
        start, before = time.monotonic(), self._outage
        since = start if before is None else before.since
        try:
            await self._redis.setrange(PROBE_KEY, 0, "")
        except RedisError as error:
            self._outage = _outage(error, since)
            if self._outage.refusal is not (before and before.refusal):
                logger.error("event=redis_takes_no_writes reason=%s", self._outage.refusal)
        else:
            self._outage = None
            if before is not None:
                logger.warning(
                    "event=redis_takes_writes_again after_s=%.1f", time.monotonic() - since
                )


def _outage(error: RedisError, since: float) -> _Outage:
    return _Outage(
        refusal=refusal_of(error) or Refusal.UNAVAILABLE,
        is_silent=isinstance(error, RedisTimeoutError),
        can_jobs_end=isinstance(error, OutOfMemoryError),  # the end of a job frees memory
        since=since,
    )
