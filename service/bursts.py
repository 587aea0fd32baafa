"""So that an iteration of the event loop stays short when much comes at once.

Requests come in bursts, and so do the ends of jobs: what each of a hundred computes before it waits
again takes a millisecond or more, and everybody else would wait for all of them. What begins with
`admit` is bounded; what else the loop does is not, and takes nobody's place.
"""

import asyncio
import time
from collections import deque
from typing import Final

# Of the processor, for all that is admitted in one iteration. On a busy machine others have the
# processor in between, and it lasts several times as long.
_ITERATION_S: Final = 0.01
_MOST_AT_ONCE: Final = 8  # of cheap ones: the next may be dear
_FIRST_COST_S: Final = 0.002
_SHARE_OF_LATEST: Final = 0.2


class BurstLimiter:
    """Admits who asks for it in their order, some in each iteration of one event loop.

    How many, follows from what those computed that had to wait, up to a few: a fast processor
    admits more.
    """

    def __init__(self) -> None:
        self._cost_s = _FIRST_COST_S  # of one, in the mean
        self._num_admitted = 0  # in this iteration
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._began_at_s = 0.0  # by the thread's time: those that had waited

    async def admit(self) -> None:
        """Go on at once, or in a later iteration where enough do in this one."""
        loop = asyncio.get_running_loop()
        if self._num_admitted == 0:
            loop.call_soon(self._admit_waiting)
        if self._num_admitted < self._most_at_once and not self._waiting:
            self._num_admitted += 1
            return
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        await place

    @property
    def _most_at_once(self) -> int:
        return min(_MOST_AT_ONCE, max(1, int(_ITERATION_S / self._cost_s)))

    def _admit_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        admitted: list[asyncio.Future[None]] = []
        while self._waiting and len(admitted) < self._most_at_once:
            place = self._waiting.popleft()
            if not place.done():  # who waited has left
                admitted.append(place)
        self._num_admitted = len(admitted)
        if admitted:  # the loop runs these callbacks in their order, and nothing in between
            loop.call_soon(self._begin)
            for place in admitted:
                place.set_result(None)
            loop.call_soon(self._end, len(admitted))

    def _begin(self) -> None:
        self._began_at_s = time.thread_time()

    def _end(self, num_admitted: int) -> None:
        cost_s = (time.thread_time() - self._began_at_s) / num_admitted
        self._cost_s += _SHARE_OF_LATEST * (cost_s - self._cost_s)
        self._admit_waiting()
