"""How a forward has the CPU's cores: its rows in parts, each on one, where there are enough.

Parts meet once, at their end. The threads of a product meet after each of a forward's hundreds,
which pays where few rows take long; a short forward loses more by it than it gains, and takes the
cores from the API and from the thread that prepares the next batch.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TypeVar

import torch

LONG_S = 0.1  # on one thread: from here on all of them pay, whatever the rows
PART_S = 0.005  # on one thread: from here on a part of its own pays
PART_ROWS = 4  # at least; with fewer, parts of unequal length waste more than they save

T = TypeVar("T")
R = TypeVar("R")


class ForwardThreads:
    """Runs forwards on as many threads as the process has at the time of the first, or fewer."""

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
        self._row_s[key] = seconds * num_parts * num_threads / len(rows)
        return outputs

    def finish(self) -> None:
        self._others.shutdown()

    def _division(self, expected_s: float, num_rows: int) -> tuple[int, int]:
        """Say how many parts there are, and how many threads each has."""
        num_parts = min(self._most, num_rows // PART_ROWS, int(expected_s / PART_S))
        num_parts = max(num_parts, 1)
        return num_parts, self._most // num_parts if expected_s > LONG_S else 1

    def _run_parts(
        self,
        parts: Sequence[Sequence[T]],
        num_threads: int,
        forward: Callable[[Sequence[T]], Sequence[R]],
    ) -> list[R]:
        def run(part: Sequence[T]) -> Sequence[R]:
            torch.set_num_threads(num_threads)  # of this thread alone
            return forward(part)

        first, *others = parts
        running = [self._others.submit(run, part) for part in others]
        try:
            outputs = [*run(first)]
        finally:
            wait(running)
        for part in running:
            outputs += part.result()
        return outputs


def _parts(rows: Sequence[T], num_parts: int) -> list[Sequence[T]]:
    bounds = [len(rows) * index // num_parts for index in range(num_parts + 1)]
    return [rows[begin:end] for begin, end in pairwise(bounds)]
