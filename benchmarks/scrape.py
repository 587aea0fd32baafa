"""What does a scrape of the API cost it, and Redis? `python -m benchmarks.scrape`.

Starts a service with one model of each task, whose clients ask for nothing. What it does without
scrapes (its probes of Redis, its workers' heartbeats) is measured before and taken off, and said.
CPU time counts, which a busy machine disturbs little.
"""

import argparse
import re
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis import Redis

from benchmarks.machine import processor
from benchmarks.reports import publish
from benchmarks.running_service import RunningService, running, scratch_redis

_NUM_SCRAPES = 200
_IDLE_S = 10.0
_CPU_S = re.compile(r"^process_cpu_seconds_total (\S+)$", re.MULTILINE)
# as Prometheus 2 and 3 ask
_ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"


@dataclass(frozen=True, slots=True)
class ScrapeCost:
    """Of one scrape of an API with nothing else to do; commands inside of scripts count as well."""

    api_cpu_ms: float
    client_ms: float
    redis_commands: float
    series: int
    idle_api_cpu_ms_per_s: float  # without scrapes
    idle_redis_commands_per_s: float  # of the API and of all workers


@dataclass(frozen=True, slots=True)
class _Reading:
    time_s: float
    cpu_s: float
    num_commands: int


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    cost: ScrapeCost


def cost_of_scrapes(service: RunningService, redis: Redis) -> ScrapeCost:
    with httpx.Client(base_url=service.url, headers={"accept": _ACCEPT}) as http:
        before = _read(http, redis)
        time.sleep(_IDLE_S)
        idle = _read(http, redis)
        for _ in range(_NUM_SCRAPES):
            http.get("/metrics").raise_for_status()
        after = _read(http, redis)
        page = http.get("/metrics").text
    idle_s, busy_s = idle.time_s - before.time_s, after.time_s - idle.time_s
    idle_cpu = (idle.cpu_s - before.cpu_s) / idle_s
    idle_commands = (idle.num_commands - before.num_commands) / idle_s
    cpu_s = after.cpu_s - idle.cpu_s - idle_cpu * busy_s
    commands = after.num_commands - idle.num_commands - idle_commands * busy_s
    return ScrapeCost(
        api_cpu_ms=round(1e3 * cpu_s / _NUM_SCRAPES, 2),
        client_ms=round(1e3 * busy_s / _NUM_SCRAPES, 2),
        redis_commands=round(commands / _NUM_SCRAPES, 1),
        series=sum(not line.startswith("#") for line in page.splitlines()),
        idle_api_cpu_ms_per_s=round(1e3 * idle_cpu, 1),
        idle_redis_commands_per_s=round(idle_commands, 1),
    )


def _read(http: httpx.Client, redis: Redis) -> _Reading:
    (cpu_s,) = _CPU_S.findall(http.get("/metrics").text)
    return _Reading(time.monotonic(), float(cpu_s), redis.info("stats")["total_commands_processed"])


def text_of(cost: ScrapeCost) -> str:
    return (
        f"a scrape of the idle API, {cost.series} series: {cost.api_cpu_ms} ms of its CPU, "
        f"{cost.client_ms} ms, {cost.redis_commands} commands to Redis; without scrapes "
        f"{cost.idle_api_cpu_ms_per_s} ms of its CPU a second, and "
        f"{cost.idle_redis_commands_per_s} commands with those of the workers\n"
    )


def measure() -> Report:
    with (
        scratch_redis(appendonly="yes", maxmemory="1gb") as server,
        Redis.from_url(server.connection_url) as redis,
        running("triptych", "serve", TRIPTYCH_REDIS_URL=server.connection_url) as service,
    ):
        return Report(processor(), cost_of_scrapes(service, redis))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    report = measure()
    publish(report, arguments.output, text_of(report.cost))


if __name__ == "__main__":
    main()
