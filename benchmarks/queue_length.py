"""What does a job cost while others wait? `python -m benchmarks.queue_length [--output FILE]`.

Servers of its own have 10, 1,000 and 100,000 jobs waiting: of one caller in one group, or of a
thousand callers in a hundred groups. In turn each gets one job more, which is submitted, asked for
its position and canceled, and another, for which the one whose turn it is is claimed and finished.
The report has the microseconds that the server itself needs for each, the median of many, and their
ratio to those with 10.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from redis import Redis

from benchmarks.machine import processor
from benchmarks.reports import publish
from benchmarks.running_service import scratch_redis
from worker.contract.jobs import ImageJob, JobState, Task, new_job_id
from worker.contract.record_scripts import POSITION
from worker.contract.records import Finished, Records, Room
from worker.contract.submission import submission

LENGTHS = (10, 1000, 100_000)
NUM_ROUNDS = 1000
SHAPES = {"one caller, one group": (1, 1), "1,000 callers, 100 groups": (1000, 100)}
_SENT_AT_ONCE = 500
_ONE = Room(max_jobs=1, rows_of_new_group=1)

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of the server."""

    num_waiting: int
    submit: float
    position: float
    cancel: float
    claim: float
    finish: float


@dataclass(frozen=True, slots=True)
class Shape:
    name: str
    costs: list[Cost]
    largest_ratio: float  # of any cost at any length to that at the first


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    load_average: float  # of the machine, before: what else it did
    shapes: list[Shape]


class Queue:
    """A server with jobs that wait, of so many callers and groups."""

    def __init__(self, redis: Redis, num_waiting: int, num_callers: int, num_groups: int) -> None:
        self.num_waiting = num_waiting
        self._redis = redis
        self._records = Records(redis)
        self._submit = redis.register_script(submission(image_job("", 0)).script)
        self._position = redis.register_script(POSITION)
        self._num_callers = num_callers
        self._num_groups = num_groups
        self._num_submitted = 0
        self.us: dict[str, list[float]] = {}

    def fill(self) -> None:
        call = submission(self._next_job())
        digest = self._redis.script_load(call.script)
        for start in range(0, self.num_waiting, _SENT_AT_ONCE):
            with self._redis.pipeline(transaction=False) as pipeline:
                for _ in range(min(_SENT_AT_ONCE, self.num_waiting - start)):
                    pipeline.evalsha(digest, 0, *submission(self._next_job()).args)
                pipeline.execute()

    def measure(self) -> None:
        """One job comes and goes, and one is taken for another that comes."""
        job, following = self._next_job(), self._next_job()
        self._time("submit", lambda: self._submit(args=submission(job).args))
        self._time("position", lambda: self._position(args=[job.id]))
        self._time("cancel", lambda: self._records.cancel(job.id))
        self._submit(args=submission(following).args)
        claim = self._time(
            "claim", lambda: self._records.claim(Task.IMAGES, "w", 60, ["model"], _ONE)
        )
        [record] = claim.records
        ending = Finished(record.id, record.attempt, JobState.CANCELED)
        self._time("finish", lambda: self._records.finish([ending]))

    def cost(self) -> Cost:
        medians = {name: round(statistics.median(times), 1) for name, times in self.us.items()}
        return Cost(num_waiting=self.num_waiting, **medians)

    def _next_job(self) -> ImageJob:
        self._num_submitted += 1
        caller = f"caller {self._num_submitted % self._num_callers}"
        return image_job(caller, self._num_submitted % self._num_groups)

    def _time(self, name: str, call: Callable[[], Reply]) -> Reply:
        before = self._script_us()
        reply = call()
        self.us.setdefault(name, []).append(self._script_us() - before)
        return reply

    def _script_us(self) -> int:
        stats: Mapping[str, Mapping[str, int]] = self._redis.info("commandstats")
        return int(stats["cmdstat_evalsha"]["usec"])


def image_job(caller: str, number_of_group: int) -> ImageJob:
    return ImageJob(
        id=new_job_id(),
        model="model",
        created_at=time.time(),
        caller=caller,
        prompt="a red circle on a white background",
        seeds=(1,),
        width=256 + 16 * number_of_group,
        height=256,
        num_steps=8,
        guidance_scale=None,
        quality="medium",
    )


def queues(
    lengths: Sequence[int], num_callers: int, num_groups: int, stack: ExitStack
) -> Iterator[Queue]:
    for length in lengths:
        server = stack.enter_context(scratch_redis())
        redis = stack.enter_context(Redis.from_url(server.connection_url))
        queue = Queue(redis, length, num_callers, num_groups)
        queue.fill()
        yield queue


def measure(
    name: str, num_callers: int, num_groups: int, lengths: Sequence[int], num_rounds: int
) -> Shape:
    with ExitStack() as stack:
        all_queues = list(queues(lengths, num_callers, num_groups, stack))
        for queue in all_queues:
            queue.measure()  # its scripts are known to the server from here on
            queue.us.clear()
        for _ in range(num_rounds):
            for queue in all_queues:
                queue.measure()
        costs = [queue.cost() for queue in all_queues]
    return Shape(name, costs, round(largest_ratio(costs), 2))


def largest_ratio(costs: Sequence[Cost]) -> float:
    first, *others = costs
    names = ("submit", "position", "cancel", "claim", "finish")
    ratios = (getattr(cost, name) / getattr(first, name) for cost in others for name in names)
    return float(max(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    load_average = round(os.getloadavg()[0], 2)
    shapes = [
        measure(name, num_callers, num_groups, LENGTHS, arguments.rounds)
        for name, (num_callers, num_groups) in SHAPES.items()
    ]
    report = Report(processor(), os.cpu_count() or 1, load_average, shapes)
    publish(report, arguments.output)


if __name__ == "__main__":
    main()
