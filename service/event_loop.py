"""How late the event loop is: what holds it up holds up every request of the process.

A thread looks on: it sees in which line the loop's thread is while it is late. Where that is the
loop's own, another process had the core, or another thread Python's lock.
"""

import asyncio
import itertools
import logging
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

from service.metrics import Metrics

logger = logging.getLogger(__name__)

_TICK_S = 0.025
_TICKS_A_COUNT = 40  # counting tasks takes longer than a tick
_LATE_S = 0.1
_SHOWN_CALLS = 4


class EventLoopMonitor:
    def __init__(self, metrics: Metrics) -> None:
        self._lag, self._num_tasks = metrics.event_loop_lag, metrics.event_loop_tasks
        self._loop_thread = threading.get_ident()
        self._is_over = threading.Event()
        self._due_at = time.monotonic() + _TICK_S
        self._seen = ""  # where the loop was, when it was late; empty: it was not

    async def run(self) -> None:
        """Measure until canceled."""
        onlooker = threading.Thread(target=self._look_on, name="event-loop-lag", daemon=True)
        onlooker.start()
        try:
            for tick in itertools.count():
                if tick % _TICKS_A_COUNT == 0:
                    self._num_tasks.set(len(asyncio.all_tasks()))
                cpu_s = time.thread_time()
                self._due_at = time.monotonic() + _TICK_S
                await asyncio.sleep(_TICK_S)
                self._observe(time.monotonic() - self._due_at, time.thread_time() - cpu_s)
        finally:
            self._is_over.set()

    def _observe(self, lag_s: float, cpu_s: float) -> None:
        self._lag.observe(max(0.0, lag_s))
        if lag_s > _LATE_S:
            logger.warning(
                "event=event_loop_late ms=%.0f cpu_ms=%.0f seen_in=%s",
                1e3 * lag_s, 1e3 * cpu_s, self._seen or "-",
            )  # fmt: skip
        self._seen = ""

    def _look_on(self) -> None:
        while not self._is_over.wait(_TICK_S):
            frame = sys._current_frames().get(self._loop_thread)
            if time.monotonic() - self._due_at > _LATE_S and not self._seen and frame is not None:
                self._seen = _place(frame)


def _place(frame: FrameType) -> str:
    """The calls that it is in, the innermost first: `decode.py:355:raw_decode<json.py:12:loads`."""
    calls = reversed(traceback.extract_stack(frame)[-_SHOWN_CALLS:])
    return "<".join(f"{Path(call.filename).name}:{call.lineno}:{call.name}" for call in calls)
