"""What does a request cost that was answered before? `python -m benchmarks.repeat [--output FILE]`.

Starts `triptych serve` and asks, one request at a time, for what it has made already: an image by
its address and in base64, a classification, an embedding; beside each the same request worked for.
Then many equal requests at once: how many runs, and how long they took.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.load_client import Load, LoadPlan, post, run_loads
from benchmarks.machine import processor
from benchmarks.reports import publish
from benchmarks.running_service import running

NUM_AT_ONCE = 32
PAINT, SEE, READ = "/v1/images/generations", "/v1/classify", "/v1/embeddings"
PROMPT = {"prompt": "a large red circle on white", "size": "128x128"}


@dataclass(frozen=True, slots=True)
class Repeated:
    """Requests of one client: each worked for, and each answered by what is kept."""

    worked_for: Load
    kept: Load


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Equal requests at one time; `alone_ms` is what one of them takes."""

    num_requests: int
    num_runs: int
    alone_ms: float
    all_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    image_by_url: Repeated
    image_in_base64: Repeated
    classification: Repeated
    embedding: Repeated
    at_once: AtOnce


class NotReusedError(Exception):
    """Raised where a repeated request was worked for."""


def measure_repeated(
    client: httpx.Client, path: str, body: Mapping[str, object], duration_s: float
) -> Repeated:
    def load(is_reused: bool) -> Load:
        request = post(path, body, is_reused=is_reused)
        port = client.base_url.port
        assert port is not None, "this is a bug: the service has a port of its own"
        [done] = run_loads(LoadPlan(port, [request], 1, duration_s))
        return done

    client.post(path, json=body).raise_for_status()
    check_reused(client.post(path, json=body), "hit")
    return Repeated(worked_for=load(False), kept=load(True))


def check_reused(response: httpx.Response, expected: str) -> None:
    got = response.raise_for_status().headers.get("x-cache")
    if got != expected:
        raise NotReusedError(f"{response.url}: x-cache is {got}, not {expected}")


def measure_at_once(client: httpx.Client) -> AtOnce:
    def paint(seed: int) -> float:
        started = time.perf_counter()
        client.post(PAINT, json={**PROMPT, "seed": seed}).raise_for_status()
        return 1e3 * (time.perf_counter() - started)

    alone_ms = min(paint(seed) for seed in range(100, 105))
    started = time.perf_counter()
    responses = asyncio.run(_paint_at_once(str(client.base_url), seed=200))
    all_ms = 1e3 * (time.perf_counter() - started)
    reused = [response.raise_for_status().headers.get("x-cache") for response in responses]
    return AtOnce(
        num_requests=len(responses),
        num_runs=reused.count(None),
        alone_ms=round(alone_ms, 1),
        all_ms=round(all_ms, 1),
    )


async def _paint_at_once(url: str, seed: int) -> list[httpx.Response]:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        requests = (client.post(PAINT, json={**PROMPT, "seed": seed}) for _ in range(NUM_AT_ONCE))
        return await asyncio.gather(*requests)


def measure(duration_s: float) -> Report:
    with (
        running("triptych", "serve") as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        painted = {**PROMPT, "seed": 1}
        image = client.post(PAINT, json=painted).raise_for_status().json()["data"][0]["b64_json"]
        return Report(
            machine=processor(),
            num_cores=os.cpu_count() or 1,
            image_by_url=measure_repeated(
                client, PAINT, {**painted, "response_format": "url"}, duration_s
            ),
            image_in_base64=measure_repeated(client, PAINT, painted, duration_s),
            classification=measure_repeated(client, SEE, {"input": image}, duration_s),
            embedding=measure_repeated(client, READ, {"input": PROMPT["prompt"]}, duration_s),
            at_once=measure_at_once(client),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration-s", type=float, default=5.0, help="of each load")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    publish(measure(arguments.duration_s), arguments.output)


if __name__ == "__main__":
    main()
