"""What does a memory budget cost? `python -m benchmarks.eviction [--output FILE]`.

Three ViT-B/16 of random weights are asked in turn by eight clients, at random, once by three
services of one model each and once by one service whose budget holds two of them. Says requests a
second of both, how often a model came back, and checks that every answer is its own model's.
"""

import argparse
import io
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from benchmarks.machine import processor
from benchmarks.reports import publish
from benchmarks.running_service import running

NAMES = ("a", "b", "c")
NUM_CLIENTS = 8
BUDGET_BYTES = 1_100_000_000  # two of 346 MB with the 310 MB of a batch, not three


@dataclass(frozen=True, slots=True)
class Answered:
    """Requests that were answered, in a time; p95 at the client."""

    num_requests: int
    duration_s: float
    p95_s: float

    @property
    def per_s(self) -> float:
        return self.num_requests / self.duration_s


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    separate_per_s: float
    separate_p95_s: float
    budget_per_s: float
    budget_p95_s: float
    share: float  # of the throughput of separate services
    num_loads: int  # in the budget's run, beyond the first of each model
    num_evictions: int
    load_s: float  # of one model, mean
    num_wrong: int


def write_model(directory: Path, name: str, seed: int) -> None:
    """A ViT-B/16 in transformers' format, whose labels say whose they are."""
    torch.manual_seed(seed)
    labels = {i: f"{name} {i}" for i in range(20)}
    config = ViTConfig(id2label=labels, label2id={label: i for i, label in labels.items()})
    ViTForImageClassification(config).save_pretrained(directory)
    ViTImageProcessor().save_pretrained(directory)


@contextmanager
def service(models: Mapping[str, Path], **settings: str) -> Iterator[httpx.Client]:
    given = ",".join(f"{name}={path}" for name, path in models.items())
    with (
        running("triptych", "serve", log=None, TRIPTYCH_MODELS=given, **settings) as service,
        httpx.Client(
            base_url=service.url, timeout=300, headers={"cache-control": "no-store"}
        ) as client,
    ):
        for name in models:
            wait_until_served(client, name)
        yield client


def wait_until_served(client: httpx.Client, name: str) -> None:
    """Readiness asks for one model of a task; the others may still be loading."""
    while post(client, name).status_code != httpx.codes.OK:
        time.sleep(0.1)


def post(client: httpx.Client, name: str) -> httpx.Response:
    buffer = io.BytesIO()
    Image.new("RGB", (224, 224), (200, 60, 40)).save(buffer, "PNG")
    file = ("a.png", buffer.getvalue(), "image/png")
    return client.post("/v1/classify", files={"file": file}, data={"model": name})


def ask(client: httpx.Client, name: str) -> str:
    answer = post(client, name).raise_for_status().json()
    label: str = answer["data"][0]["predictions"][0]["label"]
    return label


def run_load(clients: Mapping[str, httpx.Client], duration_s: float) -> tuple[Answered, int]:
    """Let every client ask one model after the other; returns also how many answers are wrong."""
    right = {name: ask(clients[name], name) for name in NAMES}
    times_s: list[float] = []
    wrong: list[str] = []
    end = time.monotonic() + duration_s

    def ask_on(seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < end:
            name = rng.choice(NAMES)
            started = time.monotonic()
            label = ask(clients[name], name)
            times_s.append(time.monotonic() - started)
            if label != right[name] or not label.startswith(f"{name} "):
                wrong.append(label)

    threads = [threading.Thread(target=ask_on, args=(seed,)) for seed in range(NUM_CLIENTS)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p95_s = sorted(times_s)[int(0.95 * (len(times_s) - 1))]
    return Answered(len(times_s), time.monotonic() - started, p95_s), len(wrong)


def metrics_of(client: httpx.Client) -> dict[str, float]:
    """The classify worker's counters, summed over models; its port is the API's plus 2."""
    port = client.base_url.port
    assert port is not None, "this is a bug: the base URL has a port"
    text = httpx.get(f"http://127.0.0.1:{port + 2}/metrics").text
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def measure(folder: Path, duration_s: float) -> Report:
    models = {name: folder / name for name in NAMES}
    for seed, (name, path) in enumerate(models.items()):
        write_model(path, name, seed)
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(service({name: path})) for name, path in models.items()
        }
        separate, num_wrong = run_load(clients, duration_s)
    with service(models, TRIPTYCH_MEMORY_BUDGET=str(BUDGET_BYTES)) as client:
        before = metrics_of(client)
        budget, num_wrong_too = run_load(dict.fromkeys(NAMES, client), duration_s)
        after = metrics_of(client)

    def grown(name: str) -> float:
        return after[name] - before[name]

    num_loads = grown("triptych_model_load_duration_seconds_count")
    return Report(
        machine=processor(),
        num_cores=os.cpu_count() or 1,
        separate_per_s=round(separate.per_s, 2),
        separate_p95_s=round(separate.p95_s, 2),
        budget_per_s=round(budget.per_s, 2),
        budget_p95_s=round(budget.p95_s, 2),
        share=round(budget.per_s / separate.per_s, 2),
        num_loads=int(num_loads),
        num_evictions=int(grown("triptych_model_evictions_total")),
        load_s=round(grown("triptych_model_load_duration_seconds_sum") / max(1, num_loads), 2),
        num_wrong=num_wrong + num_wrong_too,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration-s", type=float, default=60.0)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder), arguments.duration_s)
    publish(report, arguments.output)


if __name__ == "__main__":
    main()
