"""Since when the threads of a worker are at what they are at."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.device_sharing import DeviceSharing
from worker.pieces import Pieces


def test_the_oldest_piece_of_all_threads_counts_until_it_ends() -> None:
    pieces = Pieces()
    with ThreadPoolExecutor(1) as other, pieces.at_work():
        first = pieces.busy_since
        work = pieces.at_work()
        other.submit(work.__enter__).result()
        assert pieces.busy_since == first
        pieces.begin_next()
        second = pieces.busy_since
        other.submit(work.__exit__, None, None, None).result()
        third = pieces.busy_since
    assert first is not None
    assert second is not None
    assert third is not None
    assert first < second < third
    assert pieces.busy_since is None


def test_a_piece_that_fails_is_over() -> None:
    pieces = Pieces()
    with pytest.raises(KeyError), pieces.at_work():
        raise KeyError
    assert pieces.busy_since is None


def test_what_begins_outside_of_any_piece_may_take_any_time() -> None:
    pieces = Pieces()
    pieces.begin_next()
    assert pieces.busy_since is None


def test_each_use_of_the_device_is_a_piece_of_its_own() -> None:
    pieces = Pieces()
    sharing = DeviceSharing(pieces)
    with pieces.at_work():
        before = time.monotonic()
        assert before < (sharing.run(lambda: pieces.busy_since) or 0.0)
