"""Does anything grow with the jobs that were done? `python -m benchmarks.growth [--output FILE]`.

Starts `triptych serve` with a short `result_ttl_s` on a server of its own, and has thousands of
jobs of each kind done: synchronous, asynchronous, canceled, failed, and images. Says what Redis,
the data directory and each process hold before, after the first part and after all of them, and
once the last results have expired; and how much was written to the log for each job. The cache of
text features is small here, so that it is full at the second sample and what grows after is a leak.
"""

import argparse
import base64
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import httpx
from PIL import Image
from redis import Redis

from benchmarks.machine import processor
from benchmarks.process_tree import ProcessSize, sizes_of
from benchmarks.reports import publish
from benchmarks.running_service import running, scratch_redis

NUM_CLIENTS = 8
RESULT_TTL_S = 20
TEXT_CACHE_BYTES = 2**22
EXPIRY_S = 100.0  # results, row jobs' books of 60 s, and the rounds that remove what is left
_ASYNC = {"prefer": "respond-async"}

Request: TypeAlias = Callable[[httpx.Client, int], None]


@dataclass(frozen=True, slots=True)
class Sample:
    when: str
    num_jobs: int  # of all kinds, until now
    redis_mib: float
    redis_keys: Mapping[str, int]  # by the first two parts of their names
    num_files: int  # in the data directory
    file_bytes: int
    log_bytes_a_job: float | None  # since the sample before
    processes: Sequence[ProcessSize]


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_jobs_of_each_kind: int
    result_ttl_s: int
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Service:
    url: str
    pid: int
    redis: Redis
    data_dir: Path
    log: Path


def embed(client: httpx.Client, number: int) -> None:
    _expect(200, client.post("/v1/embeddings", json={"input": f"text number {number}"}))


def classify_later(client: httpx.Client, number: int) -> None:
    body = {"input": _image(number)}
    _expect(202, client.post("/v1/classify", json=body, headers=_ASYNC))


def cancel(client: httpx.Client, number: int) -> None:
    body = {"prompt": f"a red circle {number}", "size": "128x128", "num_inference_steps": 50}
    answer = client.post("/v1/images/generations", json=body, headers=_ASYNC)
    _expect(202, answer)
    _expect(200, client.post(f"/v1/jobs/{answer.json()['id']}/cancel"))


def fail(client: httpx.Client, number: int) -> None:
    """A file that begins as an image does: only the worker sees that it ends too early."""
    whole = base64.b64decode(_image(number))
    body = {"input": base64.b64encode(whole[:45]).decode()}
    answer = client.post("/v1/classify", json=body)
    _expect(400, answer)
    if "job_id" not in answer.json()["error"]:
        raise RuntimeError(f"refused without a job: {answer.text[:300]}")


def paint(client: httpx.Client, number: int) -> None:
    body = {"prompt": f"a blue star {number}", "size": "64x64", "num_inference_steps": 1}
    _expect(200, client.post("/v1/images/generations", json=body))


KINDS: Sequence[Request] = (embed, classify_later, cancel, fail, paint)


@contextmanager
def serving() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory() as directory,
        scratch_redis() as server,
        Redis.from_url(server.connection_url) as redis,
        running(
            "triptych",
            "serve",
            log=(log := Path(directory) / "log"),
            TRIPTYCH_REDIS_URL=server.connection_url,
            TRIPTYCH_RESULT_TTL_S=str(RESULT_TTL_S),
            TRIPTYCH_MAX_QUEUE_DEPTH="1000",
            TRIPTYCH_TEXT_CACHE_BYTES=str(TEXT_CACHE_BYTES),
        ) as service,
    ):
        yield Service(service.url, service.pid, redis, service.data_dir, log)


def do_jobs(service: Service, kinds: Sequence[Request], first: int, last: int) -> int:
    """Have the jobs of these numbers done, of each kind; returns how many those were."""

    def do_share(client_index: int) -> None:
        with httpx.Client(base_url=service.url, timeout=120) as client:
            for number in range(first + client_index, last, NUM_CLIENTS):
                for kind in kinds:
                    kind(client, number)

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        for share in [pool.submit(do_share, i) for i in range(NUM_CLIENTS)]:
            share.result()
    return len(kinds) * (last - first)


def sample(service: Service, when: str, num_jobs: int, before: Sample | None, log: int) -> Sample:
    """Measure now; `log` is how many bytes there were at the sample before."""
    files = [path for path in service.data_dir.rglob("*") if path.is_file()]
    num_new_jobs = num_jobs - (0 if before is None else before.num_jobs)
    written = service.log.stat().st_size - log
    memory = service.redis.info("memory")["used_memory"]
    return Sample(
        when=when,
        num_jobs=num_jobs,
        redis_mib=round(memory / 2**20, 1),
        redis_keys=_keys(service.redis),
        num_files=len(files),
        file_bytes=sum(_size_of(path) for path in files),
        log_bytes_a_job=round(written / num_new_jobs, 1) if num_new_jobs else None,
        processes=sizes_of(service.pid),
    )


def measure(num_jobs: int, num_first: int, kinds: Sequence[Request]) -> Iterator[Sample]:
    """Samples before the first job, after the first part, after all, and after their expiry."""
    with serving() as service:
        done = do_jobs(service, kinds, 0, NUM_CLIENTS)  # what is loaded or opened once
        last, log = sample(service, "warm", done, None, 0), service.log.stat().st_size
        yield last
        first = NUM_CLIENTS
        for end in (num_first, num_jobs):
            done += do_jobs(service, kinds, first, end)
            last = sample(service, f"{end} of each kind", done, last, log)
            first, log = end, service.log.stat().st_size
            yield last
        time.sleep(EXPIRY_S)
        yield sample(service, "after they expired", done, last, log)


def _expect(status: int, answer: httpx.Response) -> None:
    if answer.status_code != status:
        raise RuntimeError(f"got {answer.status_code}, not {status}: {answer.text[:300]}")


def _image(number: int) -> str:
    """No two are equal."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), tuple(number.to_bytes(3, "big"))).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _keys(redis: Redis) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key in redis.scan_iter(count=1000):
        kind = ":".join(key.decode().split(":")[:2])
        counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it expired a moment ago
        return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000, help="of each kind")
    parser.add_argument("--first", type=int, default=1000, help="jobs before the second sample")
    names = [kind.__name__ for kind in KINDS]
    parser.add_argument("--kinds", nargs="+", default=names, choices=names)
    parser.add_argument("--output", type=Path, default=None)
    return parser.parse_args(arguments)


def main() -> None:
    arguments = parse()
    kinds = [kind for kind in KINDS if kind.__name__ in arguments.kinds]
    samples = [*measure(arguments.jobs, arguments.first, kinds)]
    publish(Report(processor(), arguments.jobs, RESULT_TTL_S, samples), arguments.output)


if __name__ == "__main__":
    main()
