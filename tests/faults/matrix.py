"""Kill a worker or an API at every moment of a job: `python -m tests.faults.matrix [SCENE]…`.

A first run of each scene counts and names its kill points. Then, for each of these, a process
is killed there, and the reaper and a second worker do the rest; or (`--how cut`) its connections
end there and Redis is away for a while, and it has to do all by itself. Prints what is wrong, and a
table: for each command and file operation the points, those that came to a good end, runs and
seconds. Fails as well where too few points were reached to say so.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import SimpleQueue
from typing import get_args

from redis import Redis

from benchmarks.running_service import scratch_redis
from tests.faults.api_run import ApiRun
from tests.faults.fork_server import ForkServer
from tests.faults.kill_points import KillPoint, scripts
from tests.faults.runs import How, Place, Run
from tests.faults.scenes import SCENES, Scene, WorkerScene
from tests.faults.worker_run import WorkerRun

_NUM_LANES = 6  # mostly they wait for a lease
_REPEATING = ("heartbeat", "reaper")  # threads that do the same again and again
_MAX_REPEATS = 2
_GREETINGS = ("CLIENT", "HELLO", "SELECT")
_MOST_MISSED = 0.1  # of the points: what other threads do is not the same each time


@dataclass(frozen=True, slots=True)
class Outcome:
    scene: str
    point: KillPoint
    is_reached: bool
    num_attempts: int  # at the job that needed most
    seconds: float  # from the submission until all jobs were over
    faults: Sequence[str]
    log: Path

    @property
    def is_good(self) -> bool:
        return self.is_reached and not self.faults


class Matrix:
    """Runs beside each other, each in a database of its own."""

    def __init__(self, fork_server: ForkServer, redis_url: str, directory: Path, how: How) -> None:
        self._fork_server = fork_server
        self._how = how
        self._directory = directory
        self._free_databases: SimpleQueue[str] = SimpleQueue()
        for number in range(_NUM_LANES):
            self._free_databases.put(f"{redis_url}/{number}")
        self._numbers = itertools.count(1)

    def points(self, scene: Scene) -> list[KillPoint]:
        """Those that a process passes whom nobody kills."""
        with self._place() as place, open_run(scene, place) as run:
            run.begin()
            run.wait_until_done()
            points = [point for point in run.points() if _counts(point)]
        if not points:
            raise LookupError(f"scene {scene.name} has no kill points")
        return points if self._how != "cut" else [each for each in points if each.is_of_redis]

    def kill(self, scene: Scene, point: KillPoint) -> Outcome:
        """Try once more where the process did not come there, as other threads were faster."""
        outcome = self._kill(scene, point)
        return outcome if outcome.is_reached or outcome.faults else self._kill(scene, point)

    def _kill(self, scene: Scene, point: KillPoint) -> Outcome:
        with self._place() as place, open_run(scene, place) as run:
            started = time.monotonic()
            run.begin(kill_at=point)
            run.wait_until_killed()
            with suppress(TimeoutError):  # the checks say which job
                run.recover()
            return Outcome(
                scene=scene.name,
                point=point,
                is_reached=point in run.points(),
                num_attempts=run.num_attempts(),
                seconds=time.monotonic() - started,
                faults=run.faults(),
                log=run.log,
            )

    def kill_each(
        self,
        scenes: Sequence[Scene],
        choose: Callable[[Sequence[KillPoint]], Sequence[KillPoint]] = lambda points: points,
    ) -> Iterator[Outcome]:
        with ThreadPoolExecutor(_NUM_LANES) as pool:
            chosen = [
                (scene, point)
                for scene, points in zip(scenes, pool.map(self.points, scenes), strict=True)
                for point in choose(points)
            ]
            for future in as_completed([pool.submit(self.kill, *each) for each in chosen]):
                yield future.result()

    @contextmanager
    def _place(self) -> Iterator[Place]:
        redis_url = self._free_databases.get()
        try:
            directory = self._directory / f"run-{next(self._numbers)}"
            yield Place(self._fork_server, redis_url, directory, self._how)
        finally:
            self._free_databases.put(redis_url)


def _open(scene: Scene, place: Place) -> Run:
    return WorkerRun(scene, place) if isinstance(scene, WorkerScene) else ApiRun(scene, place)


@contextmanager
def open_run(scene: Scene, place: Place) -> Iterator[Run]:
    run = _open(scene, place)
    try:
        yield run
    finally:
        run.close()


@contextmanager
def open_matrix(directory: Path, how: How = "by_lease") -> Iterator[Matrix]:
    with (
        scratch_redis() as server,
        Redis.from_url(server.connection_url) as redis,
        ForkServer() as fork_server,
    ):
        for script in scripts().values():  # or the first run alone would load them
            redis.script_load(script)
        yield Matrix(fork_server, server.connection_url, directory, how)


def _counts(point: KillPoint) -> bool:
    """A greeting changes nothing, and which thread makes a connection is not the same each time."""
    if point.operation in _GREETINGS:
        return False
    return point.thread not in _REPEATING or point.occurrence <= _MAX_REPEATS


def scenes_of(how: How) -> list[str]:
    """All; but where Redis goes away, those of workers that go on then.

    One that is to end does not wait, and the clients of an API see its errors.
    """
    if how != "cut":
        return [*SCENES]
    workers = [scene for scene in SCENES.values() if isinstance(scene, WorkerScene)]
    return [scene.name for scene in workers if scene.meanwhile is None]


def one_of_each(points: Sequence[KillPoint]) -> list[KillPoint]:
    """A point for each operation: of every second one before, of the others after."""
    chosen = []
    operations = sorted({point.operation for point in points})
    for index, operation in enumerate(operations):
        of_it = [point for point in points if point.operation == operation]
        side = "before" if index % 2 else "after"
        chosen.append(next((point for point in of_it if point.side == side), of_it[0]))
    return chosen


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line for each scene and operation."""
    yield (
        f"{'scene':<20}{'operation':<44}{'points':>7}{'good':>6}{'runs':>6}"
        f"{'median s':>10}{'max s':>7}"
    )
    ordered = sorted(outcomes, key=lambda each: (each.scene, each.point.operation))
    for (scene, operation), group in groupby(
        ordered, key=lambda each: (each.scene, each.point.operation)
    ):
        of_it = list(group)
        seconds = sorted(each.seconds for each in of_it)
        yield (
            f"{scene:<20}{operation[:43]:<44}{len(of_it):>7}"
            f"{sum(each.is_good for each in of_it):>6}{max(each.num_attempts for each in of_it):>6}"
            f"{seconds[len(seconds) // 2]:>10.2f}{seconds[-1]:>7.2f}"
        )
    good = sum(each.is_good for each in outcomes)
    yield f"{len(outcomes)} points: {good} good, {num_missed(outcomes)} not reached a second time"


def num_missed(outcomes: Sequence[Outcome]) -> int:
    return sum(not each.is_reached for each in outcomes)


def proves_it(outcomes: Sequence[Outcome]) -> bool:
    """Whether nothing was wrong, at enough points."""
    if not outcomes or any(each.faults for each in outcomes):
        return False
    return num_missed(outcomes) < max(1, _MOST_MISSED * len(outcomes))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"of {', '.join(SCENES)}")
    parser.add_argument("--quick", action="store_true", help="one point for each operation")
    parser.add_argument(
        "--how", choices=get_args(How), default="by_lease", help="what gives the jobs back, or: cut"
    )
    parser.add_argument("--only", default="", help="points whose name has this in it")
    parser.add_argument("--directory", type=Path, default=None, help="keep logs and files here")
    arguments = parser.parse_args()
    scenes = [SCENES[name] for name in arguments.scenes or scenes_of(arguments.how)]

    def choose(points: Sequence[KillPoint]) -> Sequence[KillPoint]:
        points = one_of_each(points) if arguments.quick else points
        return [point for point in points if arguments.only in str(point)]

    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        outcomes = []
        with open_matrix(directory, arguments.how) as matrix:
            for outcome in matrix.kill_each(scenes, choose):
                outcomes.append(outcome)
                for fault in outcome.faults:
                    sys.stdout.write(f"{outcome.scene}: {outcome.point}: {fault}\n")
                sys.stdout.flush()
    sys.stdout.write("\n".join(table(outcomes)) + "\n")
    return 0 if proves_it(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
