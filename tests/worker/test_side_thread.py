"""A thread beside the loop's."""

import threading
import time
import weakref
from collections.abc import Sequence

import pytest
import torch

from worker.pieces import Pieces
from worker.side_thread import OwnStream, SideThread

LIMIT_S = 60.0  # reached only by a failing test


def test_all_that_gathered_is_done_at_once_and_in_order() -> None:
    may_go_on, batches = threading.Event(), list[Sequence[int]]()

    def work(items: Sequence[int]) -> None:
        may_go_on.wait()
        batches.append(items)

    thread = SideThread("test", work, Pieces())
    thread.add([1])
    thread.add([2, 3])
    thread.add([4])
    assert thread.in_hand == [1, 2, 3, 4]
    may_go_on.set()
    thread.finish()
    assert [item for batch in batches for item in batch] == [1, 2, 3, 4]
    assert len(batches) <= 2  # the first may have been taken alone
    assert thread.in_hand == []


def test_a_thread_that_waits_keeps_nothing_of_what_it_did() -> None:
    class Model:
        pass

    done = threading.Event()
    thread: SideThread[Model] = SideThread("test", lambda _: done.set(), Pieces())
    model = Model()
    kept = weakref.ref(model)
    thread.add([model])
    del model
    assert done.wait(LIMIT_S)
    while thread.in_hand:
        time.sleep(0.001)
    assert kept() is None
    thread.finish()


def test_a_thread_is_at_work_for_the_watchdog_from_what_it_takes_until_it_waits() -> None:
    pieces, seen = Pieces(), list[bool]()
    thread: SideThread[int] = SideThread(
        "test", lambda _: seen.append(pieces.busy_since is not None), pieces
    )
    assert pieces.busy_since is None
    thread.add([1])
    thread.finish()
    assert (seen, pieces.busy_since) == ([True], None)


@pytest.mark.gpu
def test_a_thread_finds_the_memory_that_it_has_freed_on_its_stream() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    stream = OwnStream()
    for _ in range(3):
        with stream.on("cuda:0"):
            work = torch.zeros(2**22, device="cuda:0")
            current = torch.cuda.current_stream()
            address = work.data_ptr()
            del work
        with stream.on("cuda:0"):
            assert torch.cuda.current_stream() == current
            assert torch.zeros(2**22, device="cuda:0").data_ptr() == address


def test_an_error_ends_the_thread_and_is_raised_where_one_asks() -> None:
    def work(items: Sequence[int]) -> None:
        raise RuntimeError(f"{items} broke")

    thread = SideThread("test", work, Pieces())
    thread.check()
    thread.add([1])
    with pytest.raises(RuntimeError, match="broke"):
        thread.finish()
    assert thread.has_failed
    with pytest.raises(RuntimeError, match="broke"):
        thread.check()


def test_it_computes_on_one_core_and_leaves_the_others_to_the_loop() -> None:
    before, seen = torch.get_num_threads(), list[int]()
    torch.set_num_threads(2)
    thread: SideThread[int] = SideThread(
        "test", lambda _: seen.append(torch.get_num_threads()), Pieces()
    )
    thread.add([1])
    thread.finish()
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert (seen, torch.get_num_threads()) == ([1, 2], 2)
    torch.set_num_threads(before)
