"""A thread beside the loop's, for what need not keep the device waiting.

It takes all that has gathered at once, in order, and is at work for the watchdog meanwhile (see
`pieces`). Knows nothing of jobs and models.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from worker.pieces import Pieces

T = TypeVar("T")


class SideThread(Generic[T]):
    """Calls `work` with what was added since the last call; an error ends it, and is kept.

    What it computes on the CPU takes one core.
    """

    def __init__(self, name: str, work: Callable[[Sequence[T]], None], pieces: Pieces) -> None:
        self._work = work
        self._pieces = pieces
        self._waiting: deque[T] = deque()
        self._at_work: Sequence[T] = ()
        self._error: BaseException | None = None
        self._is_stopping = False
        self._changed = threading.Condition()
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        # what is set counts for this thread, and for those that have computed nothing until then
        num_threads = torch.get_num_threads()
        self._thread.start()
        self._has_begun.wait()
        torch.set_num_threads(num_threads)

    def add(self, items: Sequence[T]) -> None:
        with self._changed:
            self._waiting.extend(items)
            self._changed.notify()

    @property
    def in_hand(self) -> list[T]:
        """What was added and is not done yet."""
        with self._changed:
            return [*self._at_work, *self._waiting]

    @property
    def has_failed(self) -> bool:
        return self._error is not None

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._error is not None:
            raise self._error

    def finish(self, timeout_s: float | None = None) -> None:
        """Wait until all is done, and end the thread; raises what ended it before.

        What is not done in time, where there is one, is left undone.
        """
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)
        self.check()

    def _run(self) -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # it is this thread's own from its first use on
        self._has_begun.set()
        try:
            while items := self._take():
                with self._pieces.at_work():
                    self._work(items)
                del items  # while it waits, nothing keeps a model in memory
        except BaseException as error:
            self._error = error

    def _take(self) -> Sequence[T]:
        """All that waits, once there is something; nothing at the end."""
        with self._changed:
            self._at_work = ()
            self._changed.wait_for(lambda: self._waiting or self._is_stopping)
            self._at_work = tuple(self._waiting)
            self._waiting.clear()
            return self._at_work


class OwnStream:
    """A thread's stream on each CUDA device: PyTorch keeps freed memory for the same stream."""

    def __init__(self) -> None:
        self._streams: dict[str, torch.cuda.Stream] = {}

    @contextmanager
    def on(self, device: str) -> Iterator[None]:
        """Let CUDA work run beside that of other threads, and be done when the block ends."""
        if torch.device(device).type != "cuda":
            yield
            return
        torch.cuda.set_device(device)  # each thread begins with the first one
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream()
        with torch.cuda.stream(self._streams[device]):
            yield
        self._streams[device].synchronize()


def synchronize(device: str) -> None:
    """Wait until a CUDA device has done what this thread asked of it; others do it at once."""
    if torch.device(device).type == "cuda":
        torch.cuda.current_stream(device).synchronize()
