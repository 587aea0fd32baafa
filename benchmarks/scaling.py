"""What grows with what? `python -m benchmarks.scaling [--output FILE]`, some minutes.

Requests a second of 32 clients, and the time of one that is alone, of a model that does nothing:
with larger bodies, with more API processes on the same cores, and with more models in the worker,
each asked in turn. (`benchmarks.queue_length` asks the same of the jobs that wait.)
"""

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.constant_model import MODEL, names
from benchmarks.load_client import Load, LoadPlan, post, run_loads
from benchmarks.machine import processor
from benchmarks.reports import publish, table_of
from benchmarks.running_service import RunningService, running

NUM_CLIENTS = 32
# texts of so many characters in a request; the model reads none of them
PAYLOADS = ((1, 40), (1, 30_000), (16, 40), (256, 40), (32, 30_000))
API_PROCESSES = (1, 2, 4)
NUM_MODELS = (1, 4, 16)
_MAX_REQUESTS = 100_000  # made before a load: no text comes twice
_MAX_BYTES = 500e6  # of them


@dataclass(frozen=True, slots=True)
class Point:
    """One load and one idle client, at one size."""

    question: str
    size: int
    loaded: Load
    idle: Load


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    load_average: float  # of the machine, before: what else it did
    points: Sequence[Point]


def bodies(
    models: Sequence[str] = (MODEL,), num_texts: int = 1, num_characters: int = 40
) -> Iterator[dict[str, object]]:
    """Requests for embeddings, no two alike, of one model after the other."""
    for number, model in enumerate(itertools.cycle(models)):
        texts = [f"{number} {index} ".ljust(num_characters, "x") for index in range(num_texts)]
        yield {"input": texts, "encoding_format": "base64", "model": model}


def measure_point(
    question: str,
    size: int,
    service: RunningService,
    requests: Iterator[dict[str, object]],
    duration_s: float,
) -> Point:
    [first] = posts(requests, 1)
    count = max(2 * NUM_CLIENTS, min(_MAX_REQUESTS, int(_MAX_BYTES / len(first))))
    loaded, idle = posts(requests, count), posts(requests, count // NUM_CLIENTS)
    [of_all] = run_loads(LoadPlan(service.port, loaded, NUM_CLIENTS, duration_s))
    [of_one] = run_loads(LoadPlan(service.port, idle, 1, duration_s))
    return Point(question, size, of_all, of_one)


def posts(requests: Iterator[dict[str, object]], count: int) -> list[bytes]:
    return [post("/v1/embeddings", body) for body in itertools.islice(requests, count)]


def measure_payload(duration_s: float) -> Iterator[Point]:
    with running("benchmarks.constant_model", "serve") as service:
        for num_texts, num_characters in PAYLOADS:
            requests = bodies(num_texts=num_texts, num_characters=num_characters)
            question = f"characters in {num_texts} texts"
            size = num_texts * num_characters
            yield measure_point(question, size, service, requests, duration_s)


def measure_api_processes(duration_s: float) -> Iterator[Point]:
    for size in API_PROCESSES:
        with running(
            "benchmarks.constant_model", "serve", TRIPTYCH_API_PROCESSES=str(size)
        ) as service:
            yield measure_point("API processes", size, service, bodies(), duration_s)


def measure_models(duration_s: float) -> Iterator[Point]:
    for size in NUM_MODELS:
        with running("benchmarks.constant_model", "serve", str(size)) as service:
            wait_until_loaded(service.url, names(size))
            yield measure_point("models", size, service, bodies(names(size)), duration_s)


def wait_until_loaded(url: str, models: Sequence[str]) -> None:
    """The service is ready with the first one."""
    with httpx.Client(base_url=url) as client:
        for model in models:
            body = {"input": "hello", "model": model}
            while client.post("/v1/embeddings", json=body).status_code != httpx.codes.OK:
                time.sleep(0.1)


QUESTIONS: dict[str, Callable[[float], Iterator[Point]]] = {
    "payload": measure_payload,
    "api_processes": measure_api_processes,
    "models": measure_models,
}


def measure(questions: Sequence[str], duration_s: float) -> Report:
    load_average = round(os.getloadavg()[0], 2)
    points = [point for question in questions for point in QUESTIONS[question](duration_s)]
    return Report(processor(), os.cpu_count() or 1, load_average, points)


def table(report: Report) -> str:
    header = ("what", "size", "requests/s", "p99 ms", "alone ms", "p99 ms")
    return table_of(header, [
        (
            point.question, point.size,
            point.loaded.per_s, point.loaded.p99_ms, point.idle.median_ms, point.idle.p99_ms,
        )
        for point in report.points
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=[*QUESTIONS])
    parser.add_argument("--duration-s", type=float, default=6.0)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    report = measure(arguments.questions, arguments.duration_s)
    publish(report, arguments.output, table(report))


if __name__ == "__main__":
    main()
