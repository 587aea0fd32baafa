"""What do fair turns give to whom? `python -m benchmarks.fairness [--output FILE]`.

Mixed loads come to the real scripts on a server of their own: every job is submitted, claimed and
finished there, in the order of a simulated clock. The device of the simulation does so much work a
second in so many places; a job holds one until its work is done. Each load comes twice: with its
callers and priorities, and as first come, first served, which is all jobs from one caller at one
cost. The report has the latencies of each kind of caller, from the submit to the end, and how many
of its jobs a full queue refused; the table has those by first come, first served in brackets. It
says nothing of throughput: a job holds its place as long in any order.
"""

import argparse
import heapq
import itertools
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from benchmarks.load_client import percentile
from benchmarks.reports import publish
from benchmarks.running_service import scratch_redis
from worker.contract.jobs import EmbeddingsJob, JobState, Priority, Task, new_job_id
from worker.contract.records import Finished, Records, Room
from worker.contract.submission import Terms, TooDeep, parse_submission, submission

NUM_PLACES = 4  # jobs on the device at one time
SECONDS_PER_ROW = 0.125
DEPTH = 64  # the service's, by default
SEED = 0
_TASK = Task.EMBEDDINGS  # whose cost is its rows


@dataclass(frozen=True, slots=True)
class Arrival:
    at_s: float
    kind: str  # of caller, or of job
    caller: str
    num_rows: int
    priority: Priority = "normal"


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the submit to the end."""

    kind: str
    num_jobs: int
    p50_s: float
    p50_s_first_come: float
    p95_s: float
    p95_s_first_come: float
    times_better: float  # the 95th percentile
    num_refused: int
    num_refused_first_come: int


@dataclass(frozen=True, slots=True)
class LoadReport:
    name: str
    max_depth: int | None  # of the queue; None: all may wait
    latencies: list[Latency]


@dataclass(frozen=True, slots=True)
class Report:
    num_places: int
    loads: list[LoadReport]


@dataclass(slots=True)
class Outcome:
    latencies_s: dict[str, list[float]] = field(default_factory=dict)
    num_refused: Counter[str] = field(default_factory=Counter)


def batch_beside_twenty(rng: random.Random) -> Iterator[Arrival]:
    """The twenty are half of what the device can do: each comes every five seconds."""
    for _ in range(500):
        yield Arrival(0.0, "the one with 500", "batch", 4)
    for caller in range(20):
        for at_s in moments(rng, every_s=5.0, until_s=90.0):
            yield Arrival(at_s, "the twenty", f"guest {caller}", 4)


def three_priorities(rng: random.Random) -> Iterator[Arrival]:
    """Together they are a fifth more than the device can do."""
    priorities: tuple[Priority, ...] = ("high", "normal", "low")
    for priority in priorities:
        for at_s in moments(rng, every_s=0.3125, until_s=75.0):
            yield Arrival(at_s, priority, f"{priority} {rng.randrange(5)}", 4, priority)


def short_and_long(rng: random.Random) -> Iterator[Arrival]:
    """Every caller sends both; together they are nine tenths of what the device can do."""
    for at_s in moments(rng, every_s=0.1, until_s=75.0):
        kind, num_rows = ("long", 20) if rng.random() < 0.1 else ("short", 1)
        yield Arrival(at_s, kind, f"caller {rng.randrange(10)}", num_rows)


def moments(rng: random.Random, every_s: float, until_s: float) -> Iterator[float]:
    """Of a Poisson process."""
    at_s = rng.expovariate(1 / every_s)
    while at_s < until_s:
        yield at_s
        at_s += rng.expovariate(1 / every_s)


LOADS = {
    "one caller with 500 jobs, twenty with one every 5 s": batch_beside_twenty,
    "high, normal and low": three_priorities,
    "short and long jobs of ten callers": short_and_long,
}


class Device:
    """The simulated clock and places, before the real queue."""

    def __init__(
        self, redis: Redis, num_places: int, is_fair: bool, max_depth: int | None = None
    ) -> None:
        self._redis = redis
        self._max_depth = max_depth
        self._records = Records(redis)
        self._num_places = num_places
        self._is_fair = is_fair
        self._waiting: dict[str, Arrival] = {}
        self._running: list[tuple[float, str, Arrival]] = []  # by their ends
        self._outcome = Outcome()

    def run(self, arrivals: Sequence[Arrival]) -> Outcome:
        coming = iter(sorted(arrivals, key=lambda arrival: arrival.at_s))
        following = next(coming, None)
        while following is not None or self._running:
            if not self._running or (following and following.at_s <= self._running[0][0]):
                assert following is not None, "this is a bug: nothing runs, and nothing comes"
                at_s = following.at_s
                self._submit(following)
                following = next(coming, None)
            else:
                at_s = self._end_first()
            self._fill(at_s)
        return self._outcome

    def _submit(self, arrival: Arrival) -> None:
        job = EmbeddingsJob(
            id=new_job_id(),
            model="model",
            created_at=arrival.at_s,
            caller=arrival.caller if self._is_fair else "",
            priority=arrival.priority if self._is_fair else "normal",
            texts=("",) * (arrival.num_rows if self._is_fair else 1),
        )
        call = submission(job, Terms(max_depth=self._max_depth))
        answer = parse_submission(self._redis.register_script(call.script)(args=call.args))
        if isinstance(answer, TooDeep):
            self._outcome.num_refused[arrival.kind] += 1
        else:
            self._waiting[job.id] = arrival

    def _end_first(self) -> float:
        at_s, job_id, arrival = heapq.heappop(self._running)
        self._records.finish([Finished(job_id, 1, JobState.CANCELED)])
        self._outcome.latencies_s.setdefault(arrival.kind, []).append(at_s - arrival.at_s)
        return at_s

    def _fill(self, at_s: float) -> None:
        num_free = self._num_places - len(self._running)
        room = Room(max_jobs=num_free, rows_of_new_group=1_000_000)
        for record in self._records.claim(_TASK, "device", 1e9, ["model"], room).records:
            arrival = self._waiting.pop(record.id)
            end_s = at_s + arrival.num_rows * SECONDS_PER_ROW
            heapq.heappush(self._running, (end_s, record.id, arrival))


def simulate(
    redis: Redis,
    arrivals: Sequence[Arrival],
    num_places: int,
    is_fair: bool,
    max_depth: int | None = None,
) -> Outcome:
    redis.flushall()
    return Device(redis, num_places, is_fair, max_depth).run(arrivals)


def compare(
    redis: Redis,
    name: str,
    arrivals: Sequence[Arrival],
    num_places: int = NUM_PLACES,
    max_depth: int | None = None,
) -> LoadReport:
    fair, first_come = (
        simulate(redis, arrivals, num_places, is_fair, max_depth) for is_fair in (True, False)
    )
    kinds = dict.fromkeys(arrival.kind for arrival in arrivals)
    return LoadReport(name, max_depth, [latency(kind, fair, first_come) for kind in kinds])


def latency(kind: str, fair: Outcome, first_come: Outcome) -> Latency:
    times, times_first_come = fair.latencies_s[kind], first_come.latencies_s[kind]
    p95_s, p95_s_first_come = percentile(times, 0.95), percentile(times_first_come, 0.95)
    return Latency(
        kind=kind,
        num_jobs=len(times),
        p50_s=round(percentile(times, 0.5), 1),
        p50_s_first_come=round(percentile(times_first_come, 0.5), 1),
        p95_s=round(p95_s, 1),
        p95_s_first_come=round(p95_s_first_come, 1),
        times_better=round(p95_s_first_come / p95_s, 2),
        num_refused=fair.num_refused[kind],
        num_refused_first_come=first_come.num_refused[kind],
    )


def table(report: Report) -> str:
    head = ("load", "depth", "jobs of", "done", "refused", "p50 s", "p95 s", "p95 is better by")
    rows = [
        (
            *(load.name, load.max_depth or "any", each.kind, each.num_jobs),
            f"{each.num_refused} ({each.num_refused_first_come})",
            *(f"{each.p50_s} ({each.p50_s_first_come})", f"{each.p95_s} ({each.p95_s_first_come})"),
            f"{each.times_better} x",
        )
        for load in report.loads
        for each in load.latencies
    ]
    lines = itertools.chain([head, ["---"] * len(head)], rows)
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    with (
        scratch_redis() as server,
        Redis.from_url(server.connection_url) as redis,
    ):
        loads = [
            compare(redis, name, list(make(random.Random(SEED))), max_depth=max_depth)
            for name, make in LOADS.items()
            for max_depth in (None, DEPTH)
        ]
    report = Report(NUM_PLACES, loads)
    sys.stderr.write(table(report))
    publish(report, arguments.output)


if __name__ == "__main__":
    main()
