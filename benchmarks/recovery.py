"""How soon does a job run again whose worker is gone? `python -m benchmarks.recovery`.

Kills (SIGKILL) the worker of each task in the middle of a job under `triptych serve`, then the
whole `triptych serve` that has the job where a second one is on the same Redis, as if its host were
gone. Taken are the seconds from the kill until the job runs again, and until it is done. Linux.
"""

import argparse
import base64
import io
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from PIL import Image
from redis import Redis

from benchmarks.machine import processor
from benchmarks.process_tree import tree_of
from benchmarks.reports import publish
from benchmarks.running_service import RunningService, running, scratch_redis
from worker.contract.jobs import Task
from worker.contract.workers import read_all

# A worker that has run for so long is started again without a pause (`triptych.child`).
_HEALTHY_AFTER_S = 10.5
_TIMEOUT_S = 120.0
_POLL_S = 0.002
_ALWAYS_RUN = {"Prefer": "respond-async", "Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from the kill, over `num_kills`."""

    num_kills: int
    running_median_s: float
    running_worst_s: float
    done_median_s: float
    done_worst_s: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    load_average: float  # of the machine, before: what else it did
    worker_killed: Mapping[str, Recovery]  # by task
    host_lost: Recovery | None  # a job for images


@dataclass(frozen=True, slots=True)
class _Comeback:
    running_s: float
    done_s: float


@dataclass(frozen=True, slots=True)
class _Attempt:
    worker: str
    started_at: float
    finished_at: float | None
    number: int


class _Client:
    """One service, and the Redis behind it."""

    def __init__(self, url: str, redis: Redis) -> None:
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT_S, headers=_ALWAYS_RUN)
        self._redis = redis

    def submit(self, path: str, body: Mapping[str, object]) -> str:
        job_id: str = self._http.post(path, json=body).raise_for_status().json()["id"]
        return job_id

    def attempt(self, job_id: str) -> _Attempt | None:
        """The last attempt; None before the first. Raises RuntimeError for a job that failed."""
        job = self._http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        if job["status"] not in ("queued", "running", "succeeded"):
            raise RuntimeError(f"{job_id} is {job['status']}: {job['error']}")
        if job["status"] == "queued" or not job["attempts"]:
            return None
        last = job["attempts"][-1]
        return _Attempt(last["worker"], last["started_at"], job["finished_at"], last["attempt"])

    def pid_of(self, worker: str) -> int | None:
        return next((each.pid for each in read_all(self._redis) if each.name == worker), None)

    def is_ready(self) -> bool:
        return self._http.get("/readyz").status_code == httpx.codes.OK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-kills", type=int, default=5, help="of the worker of each task")
    parser.add_argument("--num-hosts", type=int, default=3, help="that are lost")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    load_average = os.getloadavg()[0]
    with _redis() as (url, redis):
        killed = worker_recoveries(url, redis, arguments.num_kills)
        lost = [host_comeback(url, redis) for _ in range(arguments.num_hosts)]
    measured = Report(
        machine=processor(),
        num_cores=os.cpu_count() or 1,
        load_average=round(load_average, 2),
        worker_killed=killed,
        host_lost=_summary(lost) if lost else None,
    )
    sys.stdout.write(table(measured))
    publish(measured, arguments.output)


def worker_recoveries(url: str, redis: Redis, num_kills: int) -> dict[str, Recovery]:
    comebacks: dict[Task, list[_Comeback]] = {task: [] for task in Task}
    with _service(url) as service:
        client = _Client(service.url, redis)
        for _ in range(num_kills):
            for task in Task:
                _wait_until_healthy(client)
                comebacks[task].append(worker_comeback(client, task))
    return {str(task): _summary(each) for task, each in comebacks.items() if each}


def worker_comeback(client: _Client, task: Task) -> _Comeback:
    """Kill the worker in the middle of a job, and look after the job."""
    for _ in range(100):  # a job may be done before the kill
        job_id = client.submit(*_work(task))
        first = _wait_until_running(client, job_id)
        pid = client.pid_of(first.worker)
        killed_at = time.time()
        if pid is None or first.finished_at is not None:
            continue
        os.kill(pid, signal.SIGKILL)
        last = _wait_until_done(client, job_id)
        if last.number > 1:
            return _comeback(killed_at, last)
    raise RuntimeError(f"every job for {task} was done before its worker could be killed")


def host_comeback(url: str, redis: Redis) -> _Comeback:
    """Kill one of two services, with all its processes, in the middle of its job."""
    with _service(url) as one, _service(url) as other:
        client = _Client(one.url, redis)
        job_id = client.submit(*_work(Task.IMAGES))
        pid = client.pid_of(_wait_until_running(client, job_id).worker)
        lost, left = (one, other) if pid in tree_of(one.pid) else (other, one)
        killed_at = time.time()
        for each in tree_of(lost.pid):
            os.kill(each, signal.SIGKILL)
        return _comeback(killed_at, _wait_until_done(_Client(left.url, redis), job_id))


def table(report: Report) -> str:
    """A line for each, seconds."""
    lines = [f"{'lost':12}{'kills':>6}{'runs again':>12}{'worst':>8}{'done':>8}{'worst':>8}"]
    rows: list[tuple[str, Recovery]] = list(report.worker_killed.items())
    rows += [("a host", report.host_lost)] if report.host_lost is not None else []
    lines += [
        f"{name:12}{row.num_kills:6d}{row.running_median_s:12.2f}{row.running_worst_s:8.2f}"
        f"{row.done_median_s:8.2f}{row.done_worst_s:8.2f}"
        for name, row in rows
    ]
    return "\n".join(lines) + "\n"


@contextmanager
def _redis() -> Iterator[tuple[str, Redis]]:
    with (
        scratch_redis() as server,
        Redis.from_url(server.connection_url) as redis,
    ):
        yield server.connection_url, redis


def _service(redis_url: str) -> AbstractContextManager[RunningService]:
    return running("triptych", "serve", TRIPTYCH_REDIS_URL=redis_url)


def _work(task: Task) -> tuple[str, Mapping[str, object]]:
    """A path and a body that keep a worker busy for a second or so."""
    match task:
        case Task.IMAGES:
            body: dict[str, object] = {"prompt": "a red circle", "size": "256x256"}
            return "/v1/images/generations", {**body, "num_inference_steps": 40}
        case Task.CLASSIFY:
            return "/v1/classify", {"input": [_large_image()] * 32}
        case Task.EMBEDDINGS:
            return "/v1/embeddings", {"input": [f"a red circle {i}" for i in range(2048)]}


def _large_image() -> str:
    file = io.BytesIO()
    Image.new("RGB", (1024, 1024), (220, 40, 40)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _wait_until_healthy(client: _Client) -> None:
    time.sleep(_HEALTHY_AFTER_S)
    _wait_until(client.is_ready, "the service is not ready")


def _wait_until_done(client: _Client, job_id: str) -> _Attempt:
    def is_done() -> bool:
        attempt = client.attempt(job_id)
        return attempt is not None and attempt.finished_at is not None

    _wait_until(is_done, f"{job_id} is not done")
    return _attempt(client, job_id)


def _wait_until_running(client: _Client, job_id: str) -> _Attempt:
    _wait_until(lambda: client.attempt(job_id) is not None, f"{job_id} does not run")
    return _attempt(client, job_id)


def _attempt(client: _Client, job_id: str) -> _Attempt:
    attempt = client.attempt(job_id)
    assert attempt is not None, "this is a bug: there was one"
    return attempt


def _wait_until(condition: Callable[[], bool], complaint: str) -> None:
    give_up_at = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{complaint} after {_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)


def _comeback(killed_at: float, last: _Attempt) -> _Comeback:
    assert last.finished_at is not None, "this is a bug: it was waited for"
    return _Comeback(last.started_at - killed_at, last.finished_at - killed_at)


def _summary(comebacks: Sequence[_Comeback]) -> Recovery:
    running = [each.running_s for each in comebacks]
    done = [each.done_s for each in comebacks]
    return Recovery(
        num_kills=len(comebacks),
        running_median_s=round(statistics.median(running), 2),
        running_worst_s=round(max(running), 2),
        done_median_s=round(statistics.median(done), 2),
        done_worst_s=round(max(done), 2),
    )


if __name__ == "__main__":
    main()
