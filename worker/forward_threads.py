"""How many of PyTorch's threads a forward has on the CPU: one, unless it takes long.

Threads meet after each of a forward's hundreds of products. That costs a short forward more than it
saves, and takes the cores from the API and from the thread that prepares the next batch.
"""

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch

LONG_S = 0.1  # from here on all threads pay


class ForwardThreads:
    """Gives a forward the threads that the process has at the time of the first, or one alone."""

    def __init__(self) -> None:
        self._most = torch.get_num_threads()
        self._row_s: dict[Hashable, float] = {}  # lately, by what rows of a forward have in common

    @contextmanager
    def of(self, key: Hashable, num_rows: int) -> Iterator[None]:
        """Run the forward of so many rows inside; the threads stay so until the next."""
        if torch.cuda.is_initialized():  # it computes, and compiled code wants one number always
            yield
            return
        is_long = num_rows * self._row_s.get(key, 0.0) > LONG_S
        torch.set_num_threads(self._most if is_long else 1)
        before = time.perf_counter()
        yield
        self._row_s[key] = (time.perf_counter() - before) / num_rows
