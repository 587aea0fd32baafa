"""A real supervisor with real children, whose workers compute almost nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from benchmarks.running_service import free_port

ROOT = Path(__file__).parents[2]
DEADLINE_S = 90.0  # for anything to happen; reached only by a failing test


def wait_until(condition: Callable[[], bool], message: str) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up_at, message
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("PPid:")[2].split()[0])


@dataclass(frozen=True, slots=True)
class Serve:
    """A running supervisor, the address of its API, and all that it wrote."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def children(self) -> dict[str, int]:
        """The process id of each child, of its latest start."""
        return {each["child"]: int(each["pid"]) for each in self._events("started")}

    def worker_name(self, pid: int) -> str:
        """By what name this process, a worker, is known to the others."""
        names = {int(each["pid"]): each["worker"] for each in self._events("worker_started")}
        return names[pid]

    def fork_server(self) -> int:
        """The process that the workers were forked from."""
        return self.children()["fork-server"]

    def has_again(self, child: str, pid: int) -> bool:
        """Whether the child runs as another process than this one."""
        return self.children()[child] != pid

    def has_lost(self, child: str, pid: int) -> bool:
        """Whether the supervisor has said that this process of the child died."""
        lines = self.lines()
        start = next(i for i, line in enumerate(lines) if f"child={child} pid={pid}" in line)
        return any(f"event=died child={child} " in line for line in lines[start:])

    def _events(self, name: str) -> list[dict[str, str]]:
        lines = [line.split() for line in self.lines() if f"event={name} " in line]
        return [dict(part.split("=", 1) for part in line if "=" in part) for line in lines]

    def lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, "the supervisor ended:\n" + "\n".join(self.lines())
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> None:
        wait_until(self.is_ready, "never ready:\n" + "\n".join(self.lines()))

    def signal_group(self, number: signal.Signals) -> None:
        """As a terminal does, or an init system: the supervisor's whole group, no other child."""
        os.killpg(self.process.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


def start(
    data_dir: Path,
    workers: str = "",
    api_processes: int = 1,
    lease_s: float = 30.0,
    runner: Sequence[str] = (),
    **settings: str,
) -> Serve:
    """Start a supervisor on a free port; `workers` as `--workers` takes it.

    `settings` are further environment variables; `runner` is a command that runs another.

    No lease ends by itself while a test runs, unless it asks for that: what is given back is given
    back by the supervisor.
    """
    port = free_port()
    environment = os.environ | {
        "TRIPTYCH_PORT": str(port),
        "TRIPTYCH_DATA_DIR": str(data_dir),
        "TRIPTYCH_DEVICE": "cpu",
        "TRIPTYCH_WORKERS": workers,
        "TRIPTYCH_API_PROCESSES": str(api_processes),
        "TRIPTYCH_LEASE_S": str(lease_s),
        "TRIPTYCH_HEARTBEAT_S": "0.2",
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / f"serve-{port}.log"
    command = [*runner, sys.executable, "-m", "tests.triptych.tiny_serve"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a group of its own
        )
    return Serve(process, f"http://127.0.0.1:{port}", log)


@pytest.fixture
def start_serve(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    """Start a supervisor in the test's own data directory; every child is gone afterwards."""
    started: list[Serve] = []

    def start_one(lease_s: float = 30.0) -> Serve:
        started.append(start(tmp_path, lease_s=lease_s))
        return started[-1]

    yield start_one
    for serve in started:
        if serve.process.poll() is None:
            serve.process.kill()
            serve.process.wait()


@pytest.fixture(scope="package")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """One supervisor, with two images workers and two API processes.

    For the tests that leave it as they found it.
    """
    running = start(tmp_path_factory.mktemp("data"), workers="images=2", api_processes=2)
    try:
        running.wait_until_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()
