"""Since when each thread of a worker is at the piece of work that it is at, for the watchdog.

A piece is short: a forward, a batch of texts, an image. Knows nothing of what it is.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pieces:
    """Any thread may call it, and says so of itself."""

    def __init__(self) -> None:
        self._began_at: dict[int, float] = {}  # by thread, each of which changes its own alone

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """What is done inside hangs if no piece of it comes to its end."""
        thread = threading.get_ident()
        self._began_at[thread] = time.monotonic()
        try:
            yield
        finally:
            del self._began_at[thread]

    def begin_next(self) -> None:
        """Say that a piece has come to its end, and the thread goes on with another."""
        thread = threading.get_ident()
        if thread in self._began_at:  # models are warmed up outside of any
            self._began_at[thread] = time.monotonic()

    @property
    def busy_since(self) -> float | None:
        """When the oldest of them began, by the monotonic clock; None while all threads wait."""
        return min(tuple(self._began_at.values()), default=None)
