"""How long does a user wait? `python -m benchmarks.latency [--output FILE]`.

Starts `triptych serve` with an empty data directory, takes the time until `/readyz` answers 200,
then the medians at the client of a 128x128 image, a classification and an embedding, one
request at a time, and the memory of all its processes.
"""

import argparse
import base64
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.machine import processor
from benchmarks.process_tree import memory_bytes
from benchmarks.reports import publish
from benchmarks.running_service import RunningService, running


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds at the client over `count` requests."""

    count: int
    median_ms: float
    p95_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    ready_s: float
    image_128: Latency
    classification: Latency
    embedding: Latency
    memory_mb: int | None  # afterwards, what processes share counted once; None: not on Linux


def measure(count: int, request: Callable[[], httpx.Response]) -> Latency:
    """Time `count` requests after two that warm up."""
    times_ms = []
    for _ in range(count + 2):
        started = time.perf_counter()
        request().raise_for_status()
        times_ms.append((time.perf_counter() - started) * 1000)
    ordered = sorted(times_ms[2:])
    return Latency(
        count=count,
        median_ms=round(statistics.median(ordered), 1),
        p95_ms=round(ordered[int(0.95 * (count - 1))], 1),
        max_ms=round(ordered[-1], 1),
    )


def report(client: httpx.Client, service: RunningService, num_requests: int) -> Report:
    prompt = "a large red circle on a white background at the left"

    def paint() -> httpx.Response:
        return client.post(
            "/v1/images/generations",
            json={"prompt": prompt, "size": "128x128", "seed": 1},
        )

    image: str = paint().raise_for_status().json()["data"][0]["b64_json"]
    file = base64.b64decode(image)
    return Report(
        machine=processor(),
        num_cores=os.cpu_count() or 1,
        ready_s=round(service.ready_s, 2),
        image_128=measure(max(10, num_requests // 4), paint),
        classification=measure(
            num_requests,
            lambda: client.post("/v1/classify", files={"file": ("a.png", file, "image/png")}),
        ),
        embedding=measure(
            num_requests,
            lambda: client.post("/v1/embeddings", json={"model": "f_net_shapes", "input": prompt}),
        ),
        memory_mb=memory_bytes(service.pid) // 2**20 if sys.platform == "linux" else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-requests", type=int, default=100)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    with (
        running("triptych", "serve") as service,
        # equal requests, each to be worked for
        httpx.Client(
            base_url=service.url, timeout=60, headers={"cache-control": "no-store"}
        ) as client,
    ):
        measured = report(client, service, arguments.num_requests)
    publish(measured, arguments.output)


if __name__ == "__main__":
    main()
