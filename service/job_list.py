"""A caller's jobs, newest first, by pages: each begins after the last job of the one before.

Jobs that come meanwhile stand before the first page, and those that go leave no gap, so nothing is
given twice or missed. The index is in `worker/contract/listing_script`. Knows nothing of HTTP.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

from service.job_client import JobClient
from service.redis_health import RedisHealth
from service.round_trips import RoundTrips
from worker.contract.jobs import Task
from worker.contract.listing_script import END, LIST
from worker.contract.record import Record, Scalar


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs of a caller. None and no statuses: of all kinds."""

    caller: str
    limit: int
    after: str | None  # the id of a job: those that are older
    task: Task | None
    model: str | None
    statuses: Collection[str]  # as clients see them


@dataclass(frozen=True, slots=True)
class Page:
    records: Sequence[Record]  # without their results
    first_id: str | None
    last_id: str | None
    has_more: bool


class JobList:
    def __init__(self, round_trips: RoundTrips, health: RedisHealth, jobs: JobClient) -> None:
        self._round_trips = round_trips
        self._health = health
        self._jobs = jobs

    async def page(self, wanted: Wanted) -> Page:
        """Empty where `after` is not in the list: it has left that, and all before it has too."""
        self._health.check_answers()
        ids = await self._ids(wanted)
        shown_ids = ids[: wanted.limit]
        records = await asyncio.gather(*map(self._jobs.status, shown_ids))
        return Page(
            records=[record for record in records if record is not None],
            first_id=shown_ids[0] if shown_ids else None,
            last_id=shown_ids[-1] if shown_ids else None,
            has_more=len(ids) > wanted.limit,
        )

    async def _ids(self, wanted: Wanted) -> list[str]:
        """One more than wanted, where there are as many; read by parts, between which others go."""
        ids: list[str] = []
        after, is_end = wanted.after or "", False
        while not is_end and len(ids) <= wanted.limit:
            num_missing = wanted.limit + 1 - len(ids)
            args: list[Scalar] = [wanted.caller, after, num_missing, wanted.task or ""]
            args += [wanted.model or "", *wanted.statuses]
            reply = await self._round_trips.run_script(LIST, args)
            after, end, *found = cast(Sequence[str], reply)
            is_end = end == END
            ids += found
        return ids
