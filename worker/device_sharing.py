"""Pieces of work that run beside each other on one device, and each alone if that is too much.

The memory that a device's plan keeps free is for one piece. So a lack of it beside others is no
fault of a job. Knows nothing of jobs, models and streams.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from worker.failures import is_out_of_memory
from worker.pieces import Pieces

T = TypeVar("T")


class DeviceSharing:
    """Any thread may call it; no piece may call it again."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._changed = threading.Condition()
        self._num_running = 0
        self._num_to_be_alone = 0  # they go first: others come without end

    def run(self, piece: Callable[[], T]) -> T:
        """Run a piece beside others; where memory lacks, once more with nothing beside it."""
        self._pieces.begin_next()
        with self._beside():
            try:
                return piece()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
        # what the frames of the first try held is free from here on
        self._pieces.begin_next()
        with self._alone():
            return piece()

    @contextmanager
    def _beside(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._num_to_be_alone)
            self._num_running += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_running -= 1
                self._changed.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._changed:
            self._num_to_be_alone += 1
            try:
                self._changed.wait_for(lambda: not self._num_running)
                yield  # with the lock: no other begins
            finally:
                self._num_to_be_alone -= 1
                self._changed.notify_all()
