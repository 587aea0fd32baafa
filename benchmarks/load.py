"""Does the API hold under a mixed load, and leak nothing? `python -m benchmarks.load`.

Starts `triptych serve` on a server of its own and has many clients use all of its endpoints at
once. Every request is to be answered as it should be, or refused with 429 or 503 and Retry-After,
which the clients obey. Says how long classifications took, how late the event loops were, and what
each process holds before and after: a first load warms up, and what is still there a while after
the second one is a leak.
"""

import argparse
import asyncio
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvloop
from redis import Redis

from benchmarks.load_acts import ACTS, Act, Client, RefusedError, Tally, WrongAnswerError
from benchmarks.load_client import percentile
from benchmarks.machine import processor
from benchmarks.process_tree import ProcessSize, sizes_of
from benchmarks.reports import publish
from benchmarks.running_service import running, scratch_redis

_SETTLE_S = 15.0  # connections close, threads end
_WARM_UP_S = 15.0
_TIMEOUT_S = 120.0
_LONGEST_PAUSE_S = 5.0  # where Retry-After says more
_LATE = re.compile(r"event=event_loop_late ms=(\d+) cpu_ms=(\d+) seen_in=(\S+)")


@dataclass(frozen=True, slots=True)
class Times:
    """Of the calls that were answered, at the client."""

    count: int
    median_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Held:
    """What there is while nobody asks for anything."""

    when: str
    processes: Sequence[ProcessSize]
    redis_clients: int
    requests_in_flight: float  # this one too
    event_loop_tasks: float


@dataclass(frozen=True, slots=True)
class Lateness:
    """Of the event loops of all API processes."""

    num_late: int  # by more than 100 ms
    worst_ms: int
    worst_cpu_ms: int  # of it: far less, and the loop had no core, or not Python's lock
    seen_in: Mapping[str, int]  # where those that computed for half of the time or more were


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    api_processes: int
    num_clients: int
    seconds: float
    answers: Mapping[str, Mapping[str, int]]  # of each kind of request by status
    refused: int  # with 429 or 503 and Retry-After
    wrong: Sequence[str]  # answers that should not be, the first of each kind
    times: Mapping[str, Times]
    event_loops: Lateness
    held: Sequence[Held]


@dataclass(frozen=True, slots=True)
class Habits:
    """What a client does, how often each, and how long it waits before the next."""

    acts: Mapping[str, tuple[Act, float]]
    mean_pause_s: float = 0.0


USUAL = Habits(ACTS)


async def use(url: str, number: int, until: float, tally: Tally, habits: Habits = USUAL) -> None:
    """Be one client: choose what to do, wait for it, and go on, until it is time."""
    choice = random.Random(number)
    weights = [weight for _, weight in habits.acts.values()]
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, verify=False) as http:
        while time.monotonic() < until:
            (kind,) = choice.choices([*habits.acts], weights)
            started = time.monotonic()
            try:
                await habits.acts[kind][0](Client(http, choice, kind, tally))
            except RefusedError as refused:
                tally.num_refused += 1
                pause_s = min(refused.retry_after_s, _LONGEST_PAUSE_S)
                await asyncio.sleep(pause_s * (0.5 + choice.random()))
            except (WrongAnswerError, httpx.HTTPError) as error:
                tally.wrong.setdefault(kind, f"{kind}: {error!r}")
            else:
                tally.times_s[kind].append(time.monotonic() - started)
            await asyncio.sleep(habits.mean_pause_s * 2 * choice.random())


async def load(url: str, num_clients: int, seconds: float, habits: Habits = USUAL) -> Tally:
    tally, until = Tally(), time.monotonic() + seconds
    await asyncio.gather(*(use(url, each, until, tally, habits) for each in range(num_clients)))
    return tally


@dataclass(frozen=True, slots=True)
class Service:
    url: str
    pid: int
    redis: Redis
    log: Path


@contextmanager
def serving(api_processes: int) -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory() as directory,
        scratch_redis() as server,
        Redis.from_url(server.connection_url) as redis,
        running(
            *("triptych", "serve", "--api-processes", str(api_processes)),
            log=(log := Path(directory) / "log"),
            TRIPTYCH_REDIS_URL=server.connection_url,
        ) as service,
    ):
        yield Service(service.url, service.pid, redis, log)


def held(service: Service, when: str) -> Held:
    time.sleep(_SETTLE_S)
    metrics = httpx.get(f"{service.url}/metrics").raise_for_status().text
    return Held(
        when=when,
        processes=sizes_of(service.pid),
        redis_clients=service.redis.info("clients")["connected_clients"],
        requests_in_flight=_value(metrics, "triptych_http_requests_in_flight"),
        event_loop_tasks=_value(metrics, "triptych_event_loop_tasks"),
    )


def lateness(log: str) -> Lateness:
    """As the API processes said it themselves."""
    found = [(int(ms), int(cpu_ms), place) for ms, cpu_ms, place in _LATE.findall(log)]
    worst_ms, worst_cpu_ms, _ = max(found, default=(0, 0, ""))
    busy = Counter(place for ms, cpu_ms, place in found if cpu_ms >= ms / 2)
    return Lateness(len(found), worst_ms, worst_cpu_ms, dict(busy.most_common(10)))


def times(seconds: Sequence[float]) -> Times:
    return Times(
        len(seconds),
        *(round(1e3 * percentile(seconds, share), 1) for share in (0.5, 0.99, 1.0)),
    )


def measure(num_clients: int, seconds: float, api_processes: int) -> Report:
    with serving(api_processes) as service:
        uvloop.run(load(service.url, num_clients, _WARM_UP_S))
        before = held(service, "before")
        num_logged = service.log.stat().st_size
        tally = uvloop.run(load(service.url, num_clients, seconds))
        after = held(service, "after")
        log = service.log.read_bytes()[num_logged:].decode(errors="replace")
    return Report(
        machine=processor(),
        api_processes=api_processes,
        num_clients=num_clients,
        seconds=seconds,
        answers={
            kind: {str(status): count for status, count in sorted(counts.items())}
            for kind, counts in sorted(tally.answers.items())
        },
        refused=tally.num_refused,
        wrong=sorted(tally.wrong.values()),
        times={kind: times(seconds) for kind, seconds in sorted(tally.times_s.items())},
        event_loops=lateness(log),
        held=[before, after],
    )


def _value(metrics: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--api-processes", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    report = measure(arguments.clients, arguments.seconds, arguments.api_processes)
    publish(report, arguments.output)


if __name__ == "__main__":
    main()
