"""How much of a burst goes on in one iteration of the event loop, and who asks to be admitted."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import httpx
import pytest
import uvloop

from service.bursts import BurstLimiter
from tests.service.conftest import TestWorker

T = TypeVar("T")
Run: TypeAlias = Callable[[Coroutine[None, None, T]], T]
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


def compute(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@dataclass(slots=True)
class Burst:
    """Many who ask at once, and what each computes once it is admitted."""

    limiter: BurstLimiter
    cost_s: float = 0.0
    admitted: list[tuple[int, int]] = field(default_factory=list)  # who, in which iteration
    _iteration: int = 0
    _is_over: bool = False

    async def come(
        self, number: int, leavers: Collection[int] = (), beside_s: float = 0.0
    ) -> Counter[int]:
        """How many were admitted in each iteration, of which each has other work beside."""
        self.admitted, self._is_over = [], False
        loop = asyncio.get_running_loop()

        def count() -> None:
            self._iteration += 1
            compute(beside_s)
            if not self._is_over:
                loop.call_soon(count)

        callers = [asyncio.ensure_future(self._ask(each)) for each in range(number)]
        loop.call_soon(count)
        await asyncio.sleep(0)
        for each in leavers:
            callers[each].cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        self._is_over = True
        return Counter(iteration for _, iteration in self.admitted)

    async def _ask(self, number: int) -> None:
        await self.limiter.admit()
        self.admitted.append((number, self._iteration))
        compute(self.cost_s)

    @property
    def order(self) -> list[int]:
        return [number for number, _ in self.admitted]


@LOOPS
def test_of_a_burst_a_few_are_admitted_at_a_time_in_their_order(run: Run[Counter[int]]) -> None:
    burst = Burst(BurstLimiter(), cost_s=0.005)
    assert max(run(burst.come(20)).values()) <= 5
    assert burst.order == [*range(20)]


@LOOPS
def test_what_computes_for_long_is_admitted_alone(run: Run[Counter[int]]) -> None:
    async def twice() -> Counter[int]:
        burst = Burst(BurstLimiter(), cost_s=0.012)
        await burst.come(40)
        return await burst.come(20)

    assert sorted(run(twice()).values())[:-1] == [1] * 19, "but for the first, which finds room"


@LOOPS
def test_more_is_admitted_of_what_computes_little_and_never_all(run: Run[Counter[int]]) -> None:
    burst = Burst(BurstLimiter())
    assert max(run(burst.come(1000)).values()) == 8
    assert burst.order == [*range(1000)]


@LOOPS
def test_what_else_the_loop_does_takes_nobodys_place(run: Run[Counter[int]]) -> None:
    burst = Burst(BurstLimiter())
    assert max(run(burst.come(300, beside_s=0.012)).values()) == 8


@LOOPS
def test_who_leaves_while_it_waits_takes_nobodys_place(run: Run[Counter[int]]) -> None:
    burst = Burst(BurstLimiter(), cost_s=0.002)
    run(burst.come(60, leavers=range(5, 55)))
    assert burst.order == [*range(5), *range(55, 60)]
    assert burst.admitted[-1][1] - burst.admitted[0][1] <= 4, "as if they had never come"


def test_requests_ends_of_jobs_and_events_are_admitted_and_probes_never_wait(
    http: httpx.Client, worker: TestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_admitted, admit = 0, BurstLimiter.admit

    async def count(self: BurstLimiter) -> None:
        nonlocal num_admitted
        num_admitted += 1
        await admit(self)

    def admitted_since(before: int) -> int:
        return num_admitted - before

    monkeypatch.setattr(BurstLimiter, "admit", count)
    http.get("/readyz").raise_for_status()
    assert num_admitted == 0
    http.get("/v1/models").raise_for_status()
    assert num_admitted == 1
    http.post("/v1/embeddings", json={"input": "a"}).raise_for_status()
    assert admitted_since(1) >= 2, "the request, and the end of its job"
    worker.answer = lambda _job, _attempt: None
    job = http.post("/v1/embeddings", json={"input": "b"}, headers={"prefer": "respond-async"})
    before = num_admitted
    with http.stream("GET", f"/v1/jobs/{job.json()['id']}/events") as events:
        next(line for line in events.iter_lines() if line.startswith("event:"))
        assert admitted_since(before) >= 2, "the request, and the first events"
