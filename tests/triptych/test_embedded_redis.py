"""The private Valkey, and what those that were killed have left."""

import fcntl
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from triptych.embedded_redis import data_lock, embedded_redis, socket_of_our_own, wait_until_up
from triptych.ending import end


@pytest.fixture
def temp_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def left_behind(parent: Path, name: str) -> Path:
    directory = parent / f"triptych-{name}"
    directory.mkdir()
    return directory


def make_old(*directories: Path) -> None:
    for directory in directories:
        os.utime(directory, (1e9, 1e9))


def listen(directory: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "valkey.sock"))
    listener.listen()
    return listener


def names_during_a_serve(temp_dir: Path) -> set[str]:
    """What is there beside the directory of the one that is started."""
    with socket_of_our_own() as path:
        return {each.name for each in temp_dir.iterdir()} - {path.parent.name}


def test_what_killed_supervisors_left_is_removed(temp_dir: Path) -> None:
    served, empty = left_behind(temp_dir, "served"), left_behind(temp_dir, "empty")
    listen(served).close()
    make_old(served, empty)
    assert names_during_a_serve(temp_dir) == set()


def test_what_may_be_in_use_or_is_not_ours_stays(temp_dir: Path, stack: ExitStack) -> None:
    served, young = left_behind(temp_dir, "served"), left_behind(temp_dir, "young")
    held, strange = left_behind(temp_dir, "held"), left_behind(temp_dir, "strange")
    stack.enter_context(listen(served))
    (strange / "letter").touch()
    descriptor = os.open(held, os.O_RDONLY)  # a supervisor whose Valkey has just died
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    make_old(served, held, strange)
    everything = {each.name for each in (served, young, held, strange)}
    assert names_during_a_serve(temp_dir) == everything


def test_the_directory_of_a_living_supervisor_stays(temp_dir: Path) -> None:
    with socket_of_our_own() as first:
        make_old(first.parent)
        assert names_during_a_serve(temp_dir) == {first.parent.name}
    assert not first.parent.exists()


def test_a_rewrite_that_was_killed_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    left = tmp_path / "valkey" / "temp-rewriteaof-17.aof"
    left.parent.mkdir()
    left.touch()
    with data_lock(tmp_path) as lock, socket_of_our_own() as path:
        valkey = embedded_redis(tmp_path, path, lock)
        valkey.start()
        wait_until_up(f"unix://{path}", valkey)
        assert not left.exists()
        end([valkey], grace_s=10.0, hurry=threading.Event())
