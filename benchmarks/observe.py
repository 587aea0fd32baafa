"""Do the dashboards and rules show what happens? `python -m benchmarks.observe`.

Starts `triptych serve --observe` with a real Prometheus and has clients use all of it for a while.
Meanwhile a worker is killed, a queue is filled, and one model cannot be loaded. Then asks
Prometheus every expression of every dashboard and rule: each is to be read, and to return data, or
to be rightly empty for a listed reason. Ends with status 1 where one is not. Says as
well what a scrape costs, and which alerts there were. With `--pictures` draws the panels.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from redis import Redis

from benchmarks.dashboard_queries import boards, questions
from benchmarks.load import Habits, load
from benchmarks.load_acts import Tally
from benchmarks.machine import processor
from benchmarks.observation import Alert, Asked, Observation, Target
from benchmarks.observe_acts import BROKEN, OBSERVED_ACTS, fill_the_queue, kill_a_worker
from benchmarks.panels import draw
from benchmarks.prometheus_api import Prometheus
from benchmarks.reports import publish, table_of
from benchmarks.running_service import RunningService, free_port, running, scratch_redis
from benchmarks.scrape import ScrapeCost, cost_of_scrapes, text_of
from models.presets.table import BUNDLED_DIRECTORY

_HABITS = Habits(OBSERVED_ACTS, mean_pause_s=1.0)
_NUM_CLIENTS = 4
_KILL_AT, _FILL_AT, _FILL_UNTIL = 0.3, 0.5, 0.65  # shares of the time
_SETTLE_S = 10.0  # the last of it is scraped
_DRAIN_TIMEOUT_S = 120.0
_QUEUE_DEPTH = "24"
_PICTURES = ("overview", "images")


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    minutes: float
    answers: Mapping[str, int]  # by status
    wrong: Sequence[str]
    counts: Mapping[str, Mapping[str, int]]  # of outcomes, by where they were asked
    empty: Sequence[Asked]
    failed: Sequence[Asked]
    alerts: Sequence[Alert]
    targets: Sequence[Target]
    scrape_cost: ScrapeCost


@dataclass(frozen=True, slots=True)
class Running:
    service: RunningService
    redis: Redis
    prometheus: Prometheus


@contextmanager
def observed_service(log: Path | None) -> Iterator[Running]:
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as directory,
        # as in production: a log of what it does, and an end to its memory
        scratch_redis(appendonly="yes", maxmemory="1gb") as server,
        Redis.from_url(server.connection_url) as redis,
        running(
            *("triptych", "serve", "--observe"),
            *("--model", "flux_shapes", "--model", "vit_shapes", "--model", "f_net_shapes"),
            *("--model", f"{BROKEN}={broken_preset(Path(directory))}"),
            log=log,
            TRIPTYCH_REDIS_URL=server.connection_url,
            TRIPTYCH_PROMETHEUS_PORT=str(port),
            TRIPTYCH_MAX_QUEUE_DEPTH=_QUEUE_DEPTH,
            TRIPTYCH_SYNC_WAIT_S="10",  # whom a full queue keeps waiting is told that it goes on
        ) as service,
        Prometheus(f"http://127.0.0.1:{port}") as prometheus,
    ):
        yield Running(service, redis, prometheus)


def broken_preset(directory: Path) -> Path:
    """A classifier of which a copy broke off."""
    broken = directory / BROKEN
    shutil.copytree(BUNDLED_DIRECTORY / "vit_shapes", broken)
    for file in broken.glob("*.safetensors"):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    return broken


async def happen(service: RunningService, seconds: float) -> Tally:
    """The load, and what goes wrong meanwhile."""
    kill = kill_a_worker(service, _KILL_AT * seconds)
    fill = fill_the_queue(service.url, _FILL_AT * seconds, _FILL_UNTIL * seconds)
    tally, *_ = await asyncio.gather(load(service.url, _NUM_CLIENTS, seconds, _HABITS), kill, fill)
    return tally


def await_quiet(prometheus: Prometheus) -> None:
    """Return when Prometheus has seen the end of all jobs."""
    deadline = time.monotonic() + _DRAIN_TIMEOUT_S
    time.sleep(_SETTLE_S)
    while prometheus.value("max(sum by (instance) (triptych_jobs_in_state))", time.time()) > 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"jobs are left {_DRAIN_TIMEOUT_S:g} s after the load")
        time.sleep(1)


def measure(minutes: float, log: Path | None, pictures: Path | None) -> Report:
    with observed_service(log) as running:
        start = time.time()
        tally = uvloop.run(happen(running.service, 60 * minutes))
        await_quiet(running.prometheus)
        seen = Observation(running.prometheus, start, time.time())
        asked = [
            *(
                seen.ask(each)
                for name, board in boards().items()
                for each in questions(name, board)
            ),
            *map(seen.ask_rule, running.prometheus.rules()),
        ]
        if pictures is not None:
            for name in _PICTURES:
                draw(
                    boards()[name],
                    running.prometheus,
                    seen.start,
                    seen.end,
                    pictures / f"dashboard_{name}.png",
                )
        return Report(
            machine=processor(),
            minutes=minutes,
            answers=answers_of(tally),
            wrong=sorted(tally.wrong.values()),
            counts=counts_of(asked),
            empty=[each for each in asked if each.outcome == "rightly empty"],
            failed=[each for each in asked if each.outcome == "failed"],
            alerts=seen.alerts(),
            targets=seen.targets(),
            scrape_cost=cost_of_scrapes(running.service, running.redis),
        )


def answers_of(tally: Tally) -> Mapping[str, int]:
    total = sum(tally.answers.values(), Counter())
    return {str(status): total[status] for status in sorted(total)}


def counts_of(asked: Sequence[Asked]) -> Mapping[str, Mapping[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for each in asked:
        counts.setdefault(each.where, Counter())[each.outcome] += 1
    return {where: dict(found) for where, found in counts.items()}


def tables(report: Report) -> str:
    outcomes = ("data", "quiet", "rightly empty", "failed")
    rows = [
        [where, sum(found.values()), *(found.get(outcome, 0) for outcome in outcomes)]
        for where, found in report.counts.items()
    ]
    counts = report.counts.values()
    together = [sum(each.get(outcome, 0) for each in counts) for outcome in outcomes]
    total = ["together", sum(together), *together]
    alerts = [[each.name, each.pending_s, each.firing_s, each.state] for each in report.alerts]
    targets = [[each.name, each.mean_ms, each.max_ms, each.num_series] for each in report.targets]
    failed = [
        f"failed: {each.where}, {each.title}: {each.reason}\n  {each.expr}\n"
        for each in report.failed
    ]
    empty = [f"rightly empty: {each.where}, {each.title}: {each.reason}\n" for each in report.empty]
    return "\n".join([
        table_of(("expressions", "asked", *outcomes), [*rows, total]),
        table_of(("alert", "pending s", "firing s", "at the end"), alerts),
        table_of(("scrape", "mean ms", "max ms", "series"), targets),
        text_of(report.scrape_cost),
        f"answers by status: {dict(report.answers)}; wrong: {report.wrong or 'none'}\n",
        "".join(empty),
        "".join(failed),
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--pictures", type=Path, default=None, help="a folder for PNG files")
    parser.add_argument("--log", type=Path, default=None, help="what the service writes")
    arguments = parser.parse_args()
    if shutil.which("prometheus") is None:
        sys.exit("Prometheus is not installed: `apt-get install prometheus` has it")
    report = measure(arguments.minutes, arguments.log, arguments.pictures)
    publish(report, arguments.output, tables(report))
    if report.failed or report.wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
