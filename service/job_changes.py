"""Changes of jobs that must come true after their requests are over, though Redis may be away then.

The jobs of clients that have left are canceled, and the records that clients were told to come back
for are kept. They wait here until Redis takes them; nobody waits for them.
"""

import asyncio
import logging
from collections.abc import Mapping
from itertools import islice
from typing import NoReturn

from redis.asyncio import Redis

from service.background import repeat
from service.redis_health import RedisHealth
from service.round_trips import RoundTrips
from worker.contract.record_scripts import CANCEL, KEEP
from worker.contract.redis_refusals import refusal_of

logger = logging.getLogger(__name__)

_MAX_WAITING = 10_000  # some 2 MB
_AT_ONCE = 100  # in one round trip: others wait while Redis works through it
_PAUSE_S = 0.1


class JobChanges:
    def __init__(self, redis: Redis, health: RedisHealth, result_ttl_s: float) -> None:
        self._round_trips = RoundTrips(redis)
        self._health = health
        self._ttl_s = int(result_ttl_s)
        self._waiting: dict[str, str] = {}  # scripts, by the id of the job
        self._is_any = asyncio.Event()

    def cancel(self, job_id: str) -> None:
        """Cancel a job that nobody waits for; a final one stays as it is."""
        self._add(job_id, CANCEL)

    def keep(self, job_id: str) -> None:
        """Keep a record, which was to go soon after its end, as long as others."""
        self._add(job_id, KEEP)

    async def run(self) -> NoReturn:
        """Send what comes, until canceled."""
        await repeat(self._await_and_send, _PAUSE_S, "jobs_not_changed")

    async def send(self) -> None:
        """Send what waits, as far as Redis takes it."""
        while self._waiting and self._health.takes_job_ends:
            changes = dict(islice(self._waiting.items(), _AT_ONCE))
            replies = await asyncio.gather(
                *(self._round_trips.run_script(s, [i, self._ttl_s]) for i, s in changes.items()),
                return_exceptions=True,
            )
            if not self._settle(dict(zip(changes, replies, strict=True))):
                break
        if not self._waiting:
            self._is_any.clear()

    def _add(self, job_id: str, script: str) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            logger.error("event=job_change_dropped job=%s allowed=%s", oldest, _MAX_WAITING)
        self._waiting[job_id] = script
        self._is_any.set()

    async def _await_and_send(self) -> None:
        await self._is_any.wait()
        await self.send()

    def _settle(self, replies: Mapping[str, object]) -> bool:
        """Forget what was done, and what never can be; whether that is all of it."""
        is_all = True
        for job_id, reply in replies.items():
            if isinstance(reply, BaseException) and refusal_of(reply) is not None:
                is_all = False
                continue
            if isinstance(reply, BaseException):
                logger.error("event=job_not_changed job=%s", job_id, exc_info=reply)
            self._waiting.pop(job_id, None)
        return is_all
