"""Changes of jobs that must come true after their requests are over, though Redis may be away then.

Clients that have left do not wait for their jobs any more, and the records that clients were told
to come back for are kept. They wait here until Redis takes them; nobody waits for them.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

from service.background import repeat
from service.redis_health import RedisHealth
from service.round_trips import RoundTrips
from worker.contract.record_scripts import KEEP, LEAVE
from worker.contract.redis_refusals import refusal_of

logger = logging.getLogger(__name__)

_MAX_WAITING = 10_000  # some 2 MB
_AT_ONCE = 100  # in one round trip: others wait while Redis works through it
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class _Change:
    script: str
    job_id: str
    waiter: str = ""  # who has left
    key_digest: str = ""  # of the idempotency key by which it may wait for another job


class JobChanges:
    def __init__(self, round_trips: RoundTrips, health: RedisHealth, result_ttl_s: float) -> None:
        self._round_trips = round_trips
        self._health = health
        self._ttl_s = int(result_ttl_s)
        self._waiting: dict[_Change, None] = {}  # in their order
        self._is_any = asyncio.Event()

    def leave(self, job_id: str, waiter: str, key_digest: str = "") -> None:
        """Cancel a job that nobody else waits for; a final one stays as it is.

        waiter      who has waited: the id of the job that its request came with
        key_digest  of its idempotency key, where that may have attached it to another job
        """
        self._add(_Change(LEAVE, job_id, waiter, key_digest))

    def keep(self, job_id: str) -> None:
        """Keep a job for a client that was told to come back for it, as long as others."""
        self._add(_Change(KEEP, job_id))

    async def run(self) -> NoReturn:
        """Send what comes, until canceled."""
        await repeat(self._await_and_send, _PAUSE_S, "jobs_not_changed")

    async def send(self) -> None:
        """Send what waits, as far as Redis takes it."""
        while self._waiting and self._health.takes_job_ends:
            changes = list(islice(self._waiting, _AT_ONCE))
            replies = await asyncio.gather(
                *(
                    self._round_trips.run_script(
                        c.script, [c.job_id, self._ttl_s, c.waiter, c.key_digest]
                    )
                    for c in changes
                ),
                return_exceptions=True,
            )
            if not self._settle(dict(zip(changes, replies, strict=True))):
                break
        if not self._waiting:
            self._is_any.clear()

    def _add(self, change: _Change) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            logger.error("event=job_change_dropped job=%s allowed=%s", oldest.job_id, _MAX_WAITING)
        self._waiting[change] = None
        self._is_any.set()

    async def _await_and_send(self) -> None:
        await self._is_any.wait()
        await self.send()

    def _settle(self, replies: Mapping[_Change, object]) -> bool:
        """Forget what was done, and what never can be; whether that is all of it."""
        is_all = True
        for change, reply in replies.items():
            if isinstance(reply, BaseException) and refusal_of(reply) is not None:
                is_all = False
                continue
            if isinstance(reply, BaseException):
                logger.error("event=job_not_changed job=%s", change.job_id, exc_info=reply)
            self._waiting.pop(change, None)
        return is_all
