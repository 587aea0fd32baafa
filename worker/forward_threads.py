"""How a forward has the CPU's cores: its rows in parts, each on one, where there are enough.

Parts meet once, at their end. The threads of a product meet after each of a forward's hundreds,
which pays where few rows take long; a short forward loses more by it than it gains, and takes the
cores from the API and from the thread that prepares the next batch.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TypeVar

import torch

LONG_S = 0.1  # on one thread: from here on all of them pay, whatever the rows
PART_S = 0.005  # on one thread: from here on a part of its own pays
PART_ROWS = 4  # at least; with fewer, parts of unequal length waste more than they save
_FADING = 0.99  # what is known of one thread, by each forward that had all

T = TypeVar("T")
R = TypeVar("R")


class ForwardThreads:
    """Runs forwards on as many threads as the process has when this is made, or fewer."""

    def __init__(self) -> None:
        self._most = torch.get_num_threads()
        self._others = ThreadPoolExecutor(max(1, self._most - 1), "forward")  # idle ones are free
        self._row_s: dict[Hashable, float] = {}  # on one thread, lately, by key

    def run(
        self, key: Hashable, rows: Sequence[T], forward: Callable[[Sequence[T]], Sequence[R]]
    ) -> list[R]:
        """Run the forward of rows with a key in common, whose outputs are by row.

        Raises what it raises, once no part of it runs any more.
        """
        if torch.cuda.is_initialized():  # it computes, and compiled code wants one number always
            return [*forward(rows)]
        num_parts, num_threads = self._division(len(rows) * self._row_s.get(key, 0.0), len(rows))
        before = time.perf_counter()
        outputs = self._run_parts(_parts(rows, num_parts), num_threads, forward)
        seconds = time.perf_counter() - before
        self._learn(key, seconds * num_parts * num_threads / len(rows), num_threads)
        return outputs

    def finish(self) -> None:
        self._others.shutdown()

    def _division(self, expected_s: float, num_rows: int) -> tuple[int, int]:
        """Say how many parts there are, and how many threads each has."""
        most_parts = max(1, min(self._most, num_rows // PART_ROWS, int(expected_s / PART_S)))
        if expected_s <= LONG_S:
            return most_parts, 1
        in_use = {parts: parts * (self._most // parts) for parts in range(1, most_parts + 1)}
        num_parts = max(in_use, key=lambda parts: (in_use[parts], parts))
        return num_parts, self._most // num_parts

    def _learn(self, key: Hashable, row_s: float, num_threads: int) -> None:
        """Note what a row took of each thread it had.

        Several threads are never so many times as fast as one, so that what they took in all says
        no more than the most that one would take; and at times one is tried again.
        """
        if num_threads > 1:
            row_s = min(row_s, self._row_s[key] * _FADING)
        self._row_s[key] = row_s

    def _run_parts(
        self,
        parts: Sequence[Sequence[T]],
        num_threads: int,
        forward: Callable[[Sequence[T]], Sequence[R]],
    ) -> list[R]:
        def run(part: Sequence[T]) -> Sequence[R]:
            torch.set_num_threads(num_threads)  # of this thread, and of those that never computed
            return forward(part)

        first, *others = parts
        running: list[Future[Sequence[R]]] = []
        try:
            running += (self._others.submit(run, part) for part in others)
            outputs = [*run(first)]
        finally:
            wait(running)
        while running:  # the error of one that failed must not keep itself, and its tensors, alive
            outputs += running.pop(0).result()
        return outputs


def _parts(rows: Sequence[T], num_parts: int) -> list[Sequence[T]]:
    bounds = [len(rows) * index // num_parts for index in range(num_parts + 1)]
    return [rows[begin:end] for begin, end in pairwise(bounds)]
