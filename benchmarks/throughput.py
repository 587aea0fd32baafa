"""How much of the machine reaches the models? `python -m benchmarks.throughput [--output FILE]`.

Three questions, each on services that are started for it, with their clients on the same cores:
what a request costs by itself (`constant_model`, beside FastAPI alone); how many of the images that
the bare classifier could do a second it does through HTTP, queue and worker; and how much longer a
classification takes while images are painted without pause.
"""

import argparse
import base64
import io
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.constant_model import MODEL
from benchmarks.eviction import write_model
from benchmarks.load_client import Load, LoadPlan, post, run_loads
from benchmarks.machine import processor
from benchmarks.reports import publish
from benchmarks.running_service import running
from models.load import load_pipeline
from models.vit.image_classifier import ImageClassifier
from worker.host_memory import keep_freed_memory

NUM_EMBEDDING_CLIENTS = 32
NUM_CLASSIFY_CLIENTS = 64
IMAGES_PER_REQUEST = (1, 8)
BATCH_SIZE = 32  # a worker's default
NUM_IMAGES = 64  # different ones
NUM_TEXTS = 200_000  # more than are embedded by either load, so that none is asked for twice


@dataclass(frozen=True, slots=True)
class Overhead:
    """What is around a model that takes no time."""

    fastapi_loaded: Load
    fastapi_idle: Load
    loaded: Load
    idle: Load
    share_of_fastapi: float  # of its requests a second, when loaded
    idle_beyond_fastapi_ms: float  # of the median


@dataclass(frozen=True, slots=True)
class Classification:
    """Images a second of one model, bare and as a service."""

    model: str
    bare_images_per_s: float  # forwards of BATCH_SIZE prepared images, on all cores
    images_per_request: int
    load: Load
    images_per_s: float
    share: float  # of the bare forward's


@dataclass(frozen=True, slots=True)
class BesideImages:
    """One client that classifies, alone and beside two that paint."""

    idle: Load
    busy: Load
    painting: Load
    p99_ratio: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    load_average: float  # of the machine, before: what else it did
    overhead: Overhead | None
    classification: Sequence[Classification]
    beside_images: BesideImages | None


def measure_overhead(duration_s: float) -> Overhead:
    """Embed short texts, each once, with a model that does nothing.

    Kept results and shared runs are on, as they are for any client, and of no use.
    """

    def loads(port: int, model: str | None) -> tuple[Load, Load]:
        requests = [post("/v1/embeddings", body, is_reused=True) for body in different_texts(model)]
        half = len(requests) // 2
        [loaded] = run_loads(LoadPlan(port, requests[:half], NUM_EMBEDDING_CLIENTS, duration_s))
        [idle] = run_loads(LoadPlan(port, requests[half:], 1, duration_s))
        return loaded, idle

    with running("benchmarks.constant_model", "alone") as service:
        fastapi_loaded, fastapi_idle = loads(service.port, None)
    with running("benchmarks.constant_model", "serve") as service:
        loaded, idle = loads(service.port, MODEL)
    return Overhead(
        fastapi_loaded=fastapi_loaded,
        fastapi_idle=fastapi_idle,
        loaded=loaded,
        idle=idle,
        share_of_fastapi=round(loaded.per_s / fastapi_loaded.per_s, 3),
        idle_beyond_fastapi_ms=round(idle.median_ms - fastapi_idle.median_ms, 3),
    )


def different_texts(model: str | None) -> Iterator[dict[str, object]]:
    for number in range(NUM_TEXTS):
        text = f"a red circle on white, number {number}"
        yield {"input": text, "encoding_format": "base64", "model": model}


def measure_classification(
    model: str, handle: str, images: Sequence[Image.Image], file_format: str, duration_s: float
) -> Iterator[Classification]:
    """Classify different images, with one and with several in a request."""
    bare = bare_images_per_s(handle, images[0], duration_s)
    files = [encoded(image, file_format) for image in images]
    with running("triptych", "serve", TRIPTYCH_MODELS=f"{model}={handle}") as service:
        for count in IMAGES_PER_REQUEST:
            requests = [
                post("/v1/classify", {"model": model, "input": files[start : start + count]})
                for start in range(0, NUM_IMAGES, count)
            ]
            plan = LoadPlan(
                service.port, requests, NUM_CLASSIFY_CLIENTS, duration_s, warm_up_s=duration_s / 4
            )
            [done] = run_loads(plan)
            images_per_s = done.per_s * count
            yield Classification(
                model=model,
                bare_images_per_s=round(bare, 1),
                images_per_request=count,
                load=done,
                images_per_s=round(images_per_s, 1),
                share=round(images_per_s / bare, 3),
            )


@torch.inference_mode()
def bare_images_per_s(handle: str, image: Image.Image, duration_s: float) -> float:
    """Run the forward alone, on a batch that is prepared already, with a worker's memory."""
    keep_freed_memory()
    classifier = load_pipeline(handle)
    assert isinstance(classifier, ImageClassifier), f"this is a bug: {handle} is no classifier"
    images = classifier.preprocess(image)[None].expand(BATCH_SIZE, -1, -1, -1).contiguous()
    classifier.logits(images)
    num_batches, started = 0, time.perf_counter()
    while time.perf_counter() - started < duration_s:
        classifier.logits(images)
        num_batches += 1
    return num_batches * BATCH_SIZE / (time.perf_counter() - started)


def shapes() -> list[Image.Image]:
    """What vit_shapes knows, of the size that flux_shapes paints by default."""
    images = []
    for seed in range(NUM_IMAGES):
        rng = np.random.default_rng(seed)
        shape, background = (tuple(rng.integers(0, 256, 3).tolist()) for _ in range(2))
        left, top = rng.integers(0, 64, 2).tolist()
        image = Image.new("RGB", (128, 128), background)
        ImageDraw.Draw(image).ellipse((left, top, left + 56, top + 56), fill=shape)
        images.append(image)
    return images


def photographs() -> list[Image.Image]:
    """Smooth colours, as compressible as photographs, of the size that ViT-B/16 takes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (NUM_IMAGES, 8, 8, 3), dtype=np.uint8)
    size, bicubic = (224, 224), Image.Resampling.BICUBIC
    return [Image.fromarray(levels).resize(size, bicubic) for levels in coarse]


def encoded(image: Image.Image, file_format: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return base64.b64encode(buffer.getvalue()).decode()


def measure_beside_images(duration_s: float) -> BesideImages:
    """Classify one image after the other, while nothing and while something is painted."""
    classify = [post("/v1/classify", {"input": encoded(image, "PNG")}) for image in shapes()]
    paint = [post("/v1/images/generations", {"prompt": "a red circle", "seed": 1})]
    with running("triptych", "serve") as service:
        port = service.port
        [idle] = run_loads(LoadPlan(port, classify, 1, duration_s))
        busy, painting = run_loads(
            LoadPlan(port, classify, 1, duration_s), LoadPlan(port, paint, 2, duration_s)
        )
    return BesideImages(idle, busy, painting, p99_ratio=round(busy.p99_ms / idle.p99_ms, 2))


def measure(questions: Sequence[str], duration_s: float) -> Report:
    load_average = os.getloadavg()[0]
    classification: list[Classification] = []
    if "classify" in questions:
        classification += measure_classification(
            "shapes", "vit_shapes", shapes(), "PNG", duration_s
        )
    if "classify_base" in questions:
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder), "vit", seed=0)
            classification += measure_classification(
                "vit_b16", folder, photographs(), "JPEG", 3 * duration_s
            )
    return Report(
        machine=processor(),
        num_cores=os.cpu_count() or 1,
        load_average=round(load_average, 2),
        overhead=measure_overhead(duration_s) if "overhead" in questions else None,
        classification=classification,
        beside_images=measure_beside_images(duration_s) if "beside" in questions else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    questions = ["overhead", "classify", "classify_base", "beside"]
    parser.add_argument("--questions", nargs="+", choices=questions, default=questions)
    parser.add_argument("--duration-s", type=float, default=20.0)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    publish(measure(arguments.questions, arguments.duration_s), arguments.output)


if __name__ == "__main__":
    main()
