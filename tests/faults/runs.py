"""A process that is killed in the middle of a scene, others that do what is left, and a look.

Each run has an empty database and a new directory. Knows nothing of which moments there are.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from redis import Redis

from tests.faults.checks import file_faults, queue_faults
from tests.faults.fork_server import ForkServer, Order, Victim
from tests.faults.kill_points import KillPoint, Switch, points_passed
from worker.contract.jobs import Task
from worker.contract.record import Record
from worker.contract.records import Records
from worker.contract.workers import read_all

DEADLINE_S = 60.0  # for anything to happen; reached only where something is lost
QUIET_S = 0.3  # in which a process' own books are done after the last job
_TIDY_S = 5.0  # in which the reaper has done its rounds
GRACE_S = 0.2
MAX_LOSSES = 10  # a busy machine may cost a worker its lease, which must not fail the job
_LEASE_S = 0.5
_LONG_LEASE_S = 30.0  # nothing comes back by its end
_WORKER_SETTINGS = {
    "device": "cpu",
    "num_threads": "1",
    "heartbeat_s": "0.1",
    "max_attempts": str(MAX_LOSSES),
    "drain_grace_s": str(GRACE_S),
}


# How a run goes wrong, and who mends it: the process is killed, and the end of its leases gives its
# jobs back, or who sees it die; or it lives, and Redis is away for a while.
How: TypeAlias = Literal["by_lease", "by_supervisor", "cut"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run takes place."""

    fork_server: ForkServer
    redis_url: str
    directory: Path
    how: How


class Run(ABC):
    """The order of the calls: begin, wait_until_done or wait_until_killed, recover, faults."""

    def __init__(self, place: Place) -> None:
        self._place = place
        place.directory.mkdir()
        self.log = place.directory / "log"
        self._passed = place.directory / "passed"
        self._passed.touch()
        self._data_dir = place.directory / "data"
        self._images = self._data_dir / "images"
        self._switch = Switch(place.directory / "switch")
        self._never = Switch(place.directory / "never")  # of those whose points do not count
        self._redis = Redis.from_url(place.redis_url)
        self._redis.flushdb()
        self._records = Records(self._redis)
        self._started: list[Victim] = []
        self._victim: Victim | None = None

    def close(self) -> None:
        for process in self._started:
            process.close()
        self._switch.close()
        self._never.close()
        self._redis.close()

    @abstractmethod
    def begin(self, kill_at: KillPoint | None = None) -> None:
        """Let the victim come upon its work; from now on its points count."""

    @abstractmethod
    def wait_until_done(self) -> None:
        """Return when the victim, whom nobody kills, has done all that counts."""

    @abstractmethod
    def recover(self) -> None:
        """Start what does the rest."""

    @abstractmethod
    def faults_of_jobs(self) -> Iterator[str]: ...

    @abstractmethod
    def records(self) -> Sequence[Record | None]:
        """Of each job that was accepted; None: there is none any more."""

    def points(self) -> list[KillPoint]:
        """What the victim has passed."""
        return points_passed(self._passed)

    def wait_until_killed(self) -> None:
        """Return as well once all is over: the point was not reached."""
        victim = self.victim
        wait_until(lambda: not victim.is_alive or self.is_over)
        victim.wait(QUIET_S)
        self._switch.turn(is_on=False)

    @property
    def victim(self) -> Victim:
        assert self._victim is not None, "nothing has begun"
        return self._victim

    @property
    def is_over(self) -> bool:
        return all(record is not None and record.state.is_final for record in self.records())

    def num_attempts(self) -> int:
        """Of the job that needed most."""
        return max((record.attempt for record in self.records() if record), default=0)

    def faults(self) -> list[str]:
        """What is wrong; the reaper gets the time for its rounds."""
        give_up_at = time.monotonic() + _TIDY_S
        while (found := [*self._look()]) and time.monotonic() < give_up_at:
            time.sleep(0.05)
        return found

    def _look(self) -> Iterator[str]:
        yield from self.faults_of_jobs()
        yield from queue_faults(self._redis)
        yield from file_faults(self._redis, self._images, [r for r in self.records() if r])

    def _start(
        self,
        kind: Literal["worker", "api"],
        settings: Mapping[str, str],
        is_victim: bool,
        kill_at: KillPoint | None = None,
    ) -> Victim:
        common = {"redis_url": self._place.redis_url, "data_dir": str(self._data_dir)}
        order = Order(
            kind=kind,
            settings={**common, **settings},
            log=str(self.log),
            switch=str((self._switch if is_victim else self._never).path),
            passed=str(self._passed),
            strike_at=None if kill_at is None else str(kill_at),
            is_cut=self._place.how == "cut",
        )
        started = self._place.fork_server.start(order)
        self._started.append(started)
        if is_victim:
            self._victim = started
        return started

    def _start_worker(
        self, task: Task, is_victim: bool, kill_at: KillPoint | None = None
    ) -> Victim:
        lease_s = _LEASE_S if self._place.how == "by_lease" else _LONG_LEASE_S
        settings = {
            **_WORKER_SETTINGS,
            "queue": task.value,
            "lease_s": str(lease_s),
            "worker_name": f"worker-{len(self._started)}",
        }
        return self._start("worker", settings, is_victim, kill_at)

    def _wait_until_warm(self, worker: Victim) -> None:
        def is_warm() -> bool:
            return any(
                status.pid == worker.pid and status.state.is_warm
                for status in read_all(self._redis)
            )

        wait_until(lambda: is_warm() or not worker.is_alive)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Raises TimeoutError where it does not come true."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not is_so():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"it did not happen within {DEADLINE_S:g} s")
        time.sleep(0.005)
