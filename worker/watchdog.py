"""Ends a process whose work hangs, for its supervisor to start it anew.

What hangs in C may hold Python's lock for ever, so it is a thread of faulthandler's that ends the
process, one that needs no lock: it is told again and again to do so at the end of `hang_s`, counted
from the beginning of the oldest piece of work that is under way (see `pieces`). Before the end it
writes the traceback of every thread to the log. Knows nothing of what the work is.

A process that was stopped and goes on counts from then on; only if it was stopped for so long that
the time was over meanwhile, it ends at once: its jobs are others' by then. Free of torch.
"""

import faulthandler
import threading
import time

from worker.pieces import Pieces

_LOOKS = 10  # in the time that is a hang; each is a chance for a process that was stopped
_MOST_S = 5.0  # between two looks
_AT_ONCE_S = 0.001  # faulthandler takes no less


class Watchdog:
    def __init__(self, hang_s: float, pieces: Pieces) -> None:
        self._hang_s = hang_s
        self._pieces = pieces
        self._interval_s = min(hang_s / _LOOKS, _MOST_S)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        looked_at = went_on_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now - looked_at > 3 * self._interval_s:  # nothing ran meanwhile, also not the work
                went_on_at = now
            looked_at = now
            busy_since = self._pieces.busy_since
            busy_s = 0.0 if busy_since is None else now - max(busy_since, went_on_at)
            faulthandler.dump_traceback_later(max(self._hang_s - busy_s, _AT_ONCE_S), exit=True)
            if self._stopping.wait(self._interval_s):
                return
