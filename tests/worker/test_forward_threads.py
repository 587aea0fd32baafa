"""How many threads a forward has: all where forwards like it took long, one where they did not."""

import time
from collections.abc import Iterator

import pytest
import torch

from worker.forward_threads import LONG_S, ForwardThreads

NUM_THREADS = 3


@pytest.fixture
def threads() -> Iterator[ForwardThreads]:
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    yield ForwardThreads()
    torch.set_num_threads(before)


def forward(threads: ForwardThreads, key: str, num_rows: int, seconds: float = 0.0) -> int:
    """Say how many threads it had."""
    with threads.of(key, num_rows):
        time.sleep(seconds)
        return torch.get_num_threads()


def test_a_forward_has_one_thread_until_one_like_it_took_long(threads: ForwardThreads) -> None:
    assert forward(threads, "wide", num_rows=1, seconds=2 * LONG_S) == 1
    assert forward(threads, "wide", num_rows=1) == NUM_THREADS
    assert forward(threads, "narrow", num_rows=1) == 1


def test_more_rows_make_a_forward_long(threads: ForwardThreads) -> None:
    forward(threads, "key", num_rows=1, seconds=LONG_S / 4)
    assert forward(threads, "key", num_rows=64) == NUM_THREADS


def test_one_that_became_short_has_one_again(threads: ForwardThreads) -> None:
    forward(threads, "key", num_rows=1, seconds=2 * LONG_S)
    assert forward(threads, "key", num_rows=1) == NUM_THREADS
    assert forward(threads, "key", num_rows=1) == 1


def fail(threads: ForwardThreads, key: str, seconds: float) -> None:
    with threads.of(key, num_rows=1):
        time.sleep(seconds)
        raise RuntimeError("the forward broke")


def test_a_forward_that_fails_says_nothing_of_its_time(threads: ForwardThreads) -> None:
    with pytest.raises(RuntimeError):
        fail(threads, "key", 2 * LONG_S)
    assert forward(threads, "key", num_rows=1) == 1


def test_beside_a_gpu_the_threads_stay_as_they_are(
    threads: ForwardThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert forward(threads, "key", num_rows=1) == NUM_THREADS
