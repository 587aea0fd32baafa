"""Starts processes that are to be killed, without the seconds that their imports take.

The fork server is a process that has imported what a worker and an API need and has computed
nothing (see `victim`); it forks one process for each order. Knows nothing of jobs.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Order:
    """A process to start; it passes its kill points while the switch is on."""

    kind: Literal["worker", "api"]
    settings: Mapping[str, str]  # its environment variables, without their prefix
    log: str
    switch: str
    passed: str  # where it writes the points
    strike_at: str | None = None
    is_cut: bool = False  # at that point Redis goes away for a while, instead of the process


class Victim:
    """A process that somebody else's parent waits for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._descriptor: int | None = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already
            self._descriptor = None

    @property
    def is_alive(self) -> bool:
        """Whether it runs; the descriptor of a process can be read once it has ended."""
        return self._descriptor is not None and not select.select([self._descriptor], [], [], 0)[0]

    def send(self, number: signal.Signals) -> None:
        if self.is_alive:
            assert self._descriptor is not None
            signal.pidfd_send_signal(self._descriptor, number)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        if self._descriptor is None:
            return True
        return bool(select.select([self._descriptor], [], [], timeout_s)[0])

    def close(self) -> None:
        """Kill it if it still runs."""
        self.send(signal.SIGKILL)
        self.wait(10)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class ForkServer:
    """What it started dies with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.victim"],
            cwd=_ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def start(self, order: Order) -> Victim:
        """Any thread may call this."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
            self._process.stdin.flush()
            pid = self._process.stdout.readline()
        assert pid, "the fork server ended; what it wrote is above"
        return Victim(int(pid))
