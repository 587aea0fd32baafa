"""Strike processes at random under load: `python -m tests.faults.soak [--jobs N] [--hosts N]`.

Workers, the API, the supervisor, its fork server and Valkey are killed or stopped for a while, now
and then two at once, while clients send a mixed load; the next one once all is up again. When as
many jobs were accepted as asked for, that stops, and all that was accepted has to have ended once,
with its result, and to have left nothing; what nobody waits for any more has to have been canceled.
Prints the seed, by which the choice of requests and victims repeats, figures, and what is wrong.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from tests.faults.checks import LEAST_KEPT_S, file_faults, job_faults, queue_faults
from tests.faults.clients import Ledger, send_load
from tests.faults.hosts import Hosts, running_hosts
from worker.contract.jobs import ImageJob, JobState
from worker.contract.record import Record, record_key
from worker.contract.records import Records

_NUM_CLIENTS = 8
_SHARE_OF_DOUBLES = 0.2  # of the strikes, after which the next one comes at once
# So long before it is struck, and after, the service may not see that a client leaves, or say it
# too late: a stop, then a start.
_DISTURBED_S = (1.0, 8.0)
_END_TIMEOUT_S = 60.0  # for the last jobs, once nobody is killed any more
_TIDY_S = 20.0  # for the rounds of reaper and janitor


@dataclass(frozen=True, slots=True)
class Strike:
    at: float  # Unix seconds
    what: str

    @property
    def disturbs_clients(self) -> bool:
        """Not where it is a worker, or what starts those: that costs them time alone."""
        return "worker" not in self.what and "fork-server" not in self.what


@dataclass(frozen=True, slots=True)
class Figures:
    seed: int
    num_hosts: int
    seconds: float
    strikes: Counter[str]
    answers: Counter[str]
    states: Counter[str]
    runs: Counter[int]  # how many jobs needed so many
    longest_wait_s: float
    num_left: int  # jobs of clients that left while no process was struck
    faults: Sequence[str]


def soak(num_jobs: int, num_hosts: int, interval_s: float, seed: int, directory: Path) -> Figures:
    started = time.monotonic()
    ledger = Ledger(num_jobs)
    with running_hosts(num_hosts, directory) as hosts:
        strikes = _send_load_and_strike(hosts, ledger, interval_s, seed)
        for host in hosts.all:
            host.wait_until_ready()
        with Redis.from_url(hosts.redis_url) as redis:
            records = _wait_for_ends(redis)
            left = _undisturbed(ledger.left, strikes)
            faults = [*ledger.faults, *_faults(redis, directory, ledger, records)]
            faults += _left_faults(left, records)
    return Figures(
        seed=seed,
        num_hosts=num_hosts,
        seconds=time.monotonic() - started,
        strikes=Counter(strike.what for strike in strikes),
        answers=ledger.answers,
        states=Counter(record.state.value for record in records),
        runs=Counter(record.attempt for record in records),
        longest_wait_s=ledger.longest_wait_s,
        num_left=len(left),
        faults=faults,
    )


def _send_load_and_strike(
    hosts: Hosts, ledger: Ledger, interval_s: float, seed: int
) -> list[Strike]:
    urls = [host.url for host in hosts.all]
    load = threading.Thread(target=send_load, args=(urls, _NUM_CLIENTS, ledger, seed))
    load.start()
    choice, strikes = random.Random(seed), list[Strike]()
    next_at, is_double = time.monotonic() + interval_s, False
    while load.is_alive():
        load.join(0.05)
        hosts.tend()
        is_time = time.monotonic() >= next_at and not ledger.is_full
        # on a slow machine nothing would ever be up again, if it were struck by the clock alone
        if is_time and (is_double or hosts.are_whole):
            if (what := hosts.strike(choice)) is not None:
                strikes.append(Strike(time.time(), what))
            is_double = choice.random() < _SHARE_OF_DOUBLES
            next_at = time.monotonic() + interval_s * (0.5 + choice.random()) * (not is_double)
    return strikes


def _wait_for_ends(redis: Redis) -> list[Record]:
    """All records there are, once none changes any more."""
    give_up_at = time.monotonic() + _END_TIMEOUT_S
    while True:
        records = _all_records(redis)
        if all(record.state.is_final for record in records) or time.monotonic() > give_up_at:
            return records
        time.sleep(0.1)


def _all_records(redis: Redis) -> list[Record]:
    ids = [key.decode().removeprefix(record_key("")) for key in redis.scan_iter(record_key("*"))]
    found = (Records(redis).get(job_id) for job_id in ids)
    return [record for record in found if record is not None]


def _faults(
    redis: Redis, directory: Path, ledger: Ledger, records: Sequence[Record]
) -> Iterator[str]:
    images, known = directory / "data" / "images", {record.id: record for record in records}
    for job_id, kind in ledger.promised.items():
        # its answer is with the client, and what was kept briefly may be gone
        if job_id not in known and kind != "waited" and not _may_be_gone(ledger.ended.get(job_id)):
            yield f"{job_id}: lost, the client has {kind}"
    for job_id, record in known.items():
        must_succeed = ledger.promised.get(job_id) in ("waited", "asked")
        others = [] if must_succeed else [JobState.CANCELED]
        found = [*job_faults(redis, images, job_id, [JobState.SUCCEEDED, *others])]
        if redis.exists(record_key(job_id)):
            yield from found
        elif not _may_be_gone(record.finished_at):
            yield f"{job_id}: its record is gone too early"
    yield from _untidy(redis, images, records)


def _may_be_gone(ended_at: float | None) -> bool:
    return ended_at is not None and time.time() - ended_at > LEAST_KEPT_S


def _undisturbed(left: Mapping[str, float], strikes: Sequence[Strike]) -> Mapping[str, float]:
    """Those that left while it had to be seen."""
    before_s, after_s = _DISTURBED_S
    times = [strike.at for strike in strikes if strike.disturbs_clients]
    return {
        prompt: left_at
        for prompt, left_at in left.items()
        if not any(at - before_s < left_at < at + after_s for at in times)
    }


def _left_faults(left: Mapping[str, float], records: Sequence[Record]) -> Iterator[str]:
    """Jobs that ran to their end although their client had left."""
    for record in records:
        left_at = left.get(record.job.prompt) if isinstance(record.job, ImageJob) else None
        if left_at is None or record.state is JobState.CANCELED:
            continue
        if record.finished_at is None or record.finished_at > left_at:
            yield f"{record.id}: is {record.state}, and nobody waited for it any more"


def _untidy(redis: Redis, images: Path, records: Sequence[Record]) -> Sequence[str]:
    """What is left when reaper and janitor have had the time for their rounds."""
    give_up_at = time.monotonic() + _TIDY_S
    while found := [*queue_faults(redis), *file_faults(redis, images, records)]:
        if time.monotonic() > give_up_at:
            break
        time.sleep(0.2)
    return found


def describe(figures: Figures) -> Iterator[str]:
    yield f"seed {figures.seed}, {figures.num_hosts} host(s), {figures.seconds:.0f} s"
    yield f"jobs by state: {dict(figures.states)}"
    yield f"jobs by number of runs: {dict(sorted(figures.runs.items()))}"
    yield f"strikes: {sum(figures.strikes.values())}: {dict(sorted(figures.strikes.items()))}"
    yield f"answers: {dict(sorted(figures.answers.items()))}"
    yield f"longest wait of a client that was served: {figures.longest_wait_s:.1f} s"
    yield f"clients that left while no process was struck: {figures.num_left}"
    yield from figures.faults
    yield f"{len(figures.faults)} faults"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--hosts", type=int, default=1, help="supervisors on one Redis")
    parser.add_argument("--interval-s", type=float, default=3.0, help="between strikes")
    parser.add_argument("--seed", type=int, default=None, help="as printed by an earlier run")
    parser.add_argument("--directory", type=Path, default=None, help="keep logs and files here")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.directory or Path(temporary)
        figures = soak(arguments.jobs, arguments.hosts, arguments.interval_s, seed, directory)
    sys.stdout.write("\n".join(describe(figures)) + "\n")
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
