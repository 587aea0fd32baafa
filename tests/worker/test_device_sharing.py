"""Pieces of work beside each other, and one that has the device alone."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from worker.device_sharing import DeviceSharing
from worker.pieces import Pieces

LIMIT_S = 60.0  # reached only by a failing test


def test_pieces_run_beside_each_other() -> None:
    sharing, both = DeviceSharing(Pieces()), threading.Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        pieces = [threads.submit(sharing.run, lambda: both.wait(LIMIT_S)) for _ in range(2)]
        assert sorted(piece.result() for piece in pieces) == [0, 1]


def test_a_piece_that_lacked_memory_runs_again_when_those_beside_it_are_done() -> None:
    sharing, log = DeviceSharing(Pieces()), list[str]()
    has_begun, has_lacked, may_end = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        has_begun.set()
        assert may_end.wait(LIMIT_S)
        log.append("first")

    def hungry() -> str:
        if not has_lacked.is_set():
            has_lacked.set()
            raise torch.OutOfMemoryError("beside the first")
        log.append("hungry")
        return "done"

    with ThreadPoolExecutor(2) as threads:
        beside: Future[None] = threads.submit(sharing.run, first)
        assert has_begun.wait(LIMIT_S)
        again = threads.submit(sharing.run, hungry)
        assert has_lacked.wait(LIMIT_S)
        may_end.set()
        beside.result()
        assert again.result() == "done"
    assert log == ["first", "hungry"]


def test_nothing_begins_beside_a_piece_that_has_the_device_alone() -> None:
    sharing, log = DeviceSharing(Pieces()), list[str]()
    tries, is_alone, may_end = list[int](), threading.Event(), threading.Event()

    def hungry() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise MemoryError
        is_alone.set()
        may_end.wait(0.05)  # nothing else sets it
        log.append("hungry")

    with ThreadPoolExecutor(2) as threads:
        alone = threads.submit(sharing.run, hungry)
        assert is_alone.wait(LIMIT_S)
        threads.submit(sharing.run, lambda: log.append("later")).result()
        alone.result()
    assert log == ["hungry", "later"]


def fails_with(error: Exception, tries: list[int]) -> Callable[[], None]:
    def piece() -> None:
        tries.append(1)
        raise error

    return piece


@pytest.mark.parametrize(
    ("error", "num_tries"), [(torch.OutOfMemoryError("alone as well"), 2), (ValueError("bad"), 1)]
)
def test_what_fails_alone_or_for_another_reason_fails(error: Exception, num_tries: int) -> None:
    sharing, tries = DeviceSharing(Pieces()), list[int]()
    with pytest.raises(type(error), match=str(error)):
        sharing.run(fails_with(error, tries))
    assert len(tries) == num_tries
    assert sharing.run(lambda: "goes on") == "goes on"
