"""How a forward has the cores: its rows in parts, or all threads for few that take long."""

import gc
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakSet

import pytest
import torch
from torch import Tensor

from worker.forward_threads import LONG_S, PART_ROWS, PART_S, ForwardThreads

NUM_THREADS = 3
MANY = 2 * NUM_THREADS * PART_ROWS


@pytest.fixture
def threads() -> Iterator[ForwardThreads]:
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    yield (made := ForwardThreads())
    made.finish()
    torch.set_num_threads(before)


def run(
    threads: ForwardThreads, key: str, num_rows: int, seconds: float = 0.0
) -> list[tuple[int, int]]:
    """Say how many rows each part had, and how many threads, the part of the first row first."""
    parts: dict[int, tuple[int, int]] = {}

    def forward(rows: Sequence[int]) -> list[int]:
        time.sleep(seconds)
        parts[rows[0]] = len(rows), torch.get_num_threads()
        return [-row for row in rows]

    rows = range(1, num_rows + 1)
    assert threads.run(key, rows, forward) == [-row for row in rows]
    return [parts[first] for first in sorted(parts)]


def test_few_rows_have_one_thread_until_some_like_them_took_long(threads: ForwardThreads) -> None:
    assert run(threads, "wide", num_rows=1, seconds=2 * LONG_S) == [(1, 1)]
    assert run(threads, "wide", num_rows=1) == [(1, NUM_THREADS)]
    assert run(threads, "narrow", num_rows=1) == [(1, 1)]


def test_those_that_became_short_have_one_again(threads: ForwardThreads) -> None:
    run(threads, "key", num_rows=1, seconds=2 * LONG_S)
    assert run(threads, "key", num_rows=1) == [(1, NUM_THREADS)]
    assert [(1, 1)] in [run(threads, "key", num_rows=1) for _ in range(20)]  # a busy machine lags


def test_one_thread_is_tried_again_where_many_gain_little(threads: ForwardThreads) -> None:
    """A row that took long once, and takes 40 ms however many threads there are."""
    run(threads, "key", num_rows=1, seconds=2 * LONG_S)
    later = [run(threads, "key", num_rows=1, seconds=0.4 * LONG_S) for _ in range(40)]
    assert later[0] == [(1, NUM_THREADS)]
    assert [(1, 1)] in later


def test_long_rows_leave_no_core_without_a_part(threads: ForwardThreads) -> None:
    run(threads, "key", num_rows=1, seconds=2 * LONG_S)
    assert run(threads, "key", num_rows=2 * PART_ROWS) == [(2 * PART_ROWS, NUM_THREADS)]


def test_many_rows_are_parted_among_the_cores(threads: ForwardThreads) -> None:
    assert run(threads, "key", MANY, seconds=4 * LONG_S) == [(MANY, 1)]
    assert run(threads, "key", MANY) == [(MANY // NUM_THREADS, 1)] * NUM_THREADS


def test_parts_differ_by_one_row_at_most(threads: ForwardThreads) -> None:
    run(threads, "key", MANY + 1, seconds=4 * LONG_S)
    sizes = [num_rows for num_rows, _ in run(threads, "key", MANY + 1)]
    assert sum(sizes) == MANY + 1
    assert set(sizes) == {MANY // NUM_THREADS, MANY // NUM_THREADS + 1}


def test_too_few_rows_for_a_part_each_make_fewer_parts(threads: ForwardThreads) -> None:
    run(threads, "key", num_rows=2 * PART_ROWS, seconds=LONG_S / 2)
    assert run(threads, "key", num_rows=2 * PART_ROWS) == [(PART_ROWS, 1)] * 2


def test_one_long_part_has_the_threads_that_no_other_has(threads: ForwardThreads) -> None:
    run(threads, "key", num_rows=1, seconds=2 * LONG_S)
    assert run(threads, "key", num_rows=PART_ROWS) == [(PART_ROWS, NUM_THREADS)]


def test_rows_that_take_next_to_nothing_stay_together(threads: ForwardThreads) -> None:
    run(threads, "key", MANY)
    assert [(MANY, 1)] in [run(threads, "key", MANY) for _ in range(20)]  # a busy machine lags


def test_what_parts_took_counts_as_if_one_thread_had_done_it_all(threads: ForwardThreads) -> None:
    run(threads, "key", MANY, seconds=2 * NUM_THREADS * PART_S)
    for _ in range(3):
        assert len(run(threads, "key", MANY, seconds=2 * PART_S)) == NUM_THREADS


def test_parts_run_beside_each_other(threads: ForwardThreads) -> None:
    run(threads, "key", MANY, seconds=4 * LONG_S)
    together = threading.Barrier(NUM_THREADS)

    def forward(rows: Sequence[int]) -> Sequence[int]:
        together.wait(60)
        return rows

    assert threads.run("key", range(MANY), forward) == [*range(MANY)]


@pytest.mark.parametrize("bad_row", [0, MANY - 1])
def test_a_part_that_fails_ends_the_forward_when_none_runs_any_more(
    threads: ForwardThreads, bad_row: int
) -> None:
    run(threads, "key", MANY, seconds=4 * LONG_S)
    ended: list[int] = []

    def forward(rows: Sequence[int]) -> Sequence[int]:
        if bad_row in rows:
            raise MemoryError
        time.sleep(0.2)
        ended.append(rows[0])
        return rows

    with pytest.raises(MemoryError):
        threads.run("key", range(MANY), forward)
    assert len(ended) == NUM_THREADS - 1


def test_what_a_part_held_is_gone_with_its_error(threads: ForwardThreads) -> None:
    """Before the next forward, which has fewer rows because memory lacked."""
    run(threads, "key", MANY, seconds=4 * LONG_S)
    held: WeakSet[Tensor] = WeakSet()

    def forward(rows: Sequence[int]) -> Sequence[int]:
        held.add(activations := torch.zeros(len(rows)))
        if rows[0] > 0:
            raise MemoryError(len(activations))
        return rows

    gc.disable()
    try:
        with pytest.raises(MemoryError):
            threads.run("key", range(MANY), forward)
        assert not held
    finally:
        gc.enable()


def test_a_forward_that_fails_says_nothing_of_its_time(threads: ForwardThreads) -> None:
    def fail(rows: Sequence[int]) -> Sequence[int]:
        time.sleep(2 * LONG_S)
        raise RuntimeError(f"the forward of {len(rows)} rows broke")

    with pytest.raises(RuntimeError):
        threads.run("key", range(1), fail)
    assert run(threads, "key", num_rows=1) == [(1, 1)]


def test_threads_that_are_none_of_its_own_keep_theirs(threads: ForwardThreads) -> None:
    with ThreadPoolExecutor(1) as others:
        assert others.submit(torch.get_num_threads).result() == NUM_THREADS
        run(threads, "key", MANY, seconds=4 * LONG_S)
        run(threads, "key", MANY)
        assert others.submit(torch.get_num_threads).result() == NUM_THREADS


def test_beside_a_gpu_the_threads_stay_as_they_are(
    threads: ForwardThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    run(threads, "key", MANY, seconds=4 * LONG_S)
    assert run(threads, "key", MANY) == [(MANY, NUM_THREADS)]
