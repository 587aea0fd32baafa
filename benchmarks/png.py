"""How fast are PNG files made, and how large are they? `python -m benchmarks.png [--output FILE]`.

Encodes 1024x1024 pictures that are unlike each other with `worker.png` and with Pillow at its
default, on one core in turn, and says milliseconds of both and the ratio of sizes.
"""

import argparse
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.machine import processor
from benchmarks.reports import publish
from worker import png

SIDE = 1024
NUM_RUNS = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """Milliseconds of the processor's time, the shortest of a few runs."""

    name: str
    ms: float
    pillow_ms: float
    time_ratio: float
    size_ratio: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    pictures: list[Picture]


def flat_shapes() -> np.ndarray:
    image = Image.new("RGB", (SIDE, SIDE), (245, 245, 245))
    draw = ImageDraw.Draw(image)
    draw.ellipse((200, 200, 700, 700), fill=(220, 40, 40))
    draw.rectangle((600, 650, 900, 950), fill=(40, 80, 220))
    return np.array(image)


def decoded_shapes() -> np.ndarray:
    """Flat shapes as a decoder makes them: a level more or less here and there."""
    noise = np.random.default_rng(0).integers(-1, 2, (SIDE, SIDE, 3))
    return np.asarray((flat_shapes() + noise).clip(0, 255), np.uint8)


def gradient() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    return np.stack([rows * 255, columns * 255, (rows + columns) * 127], -1).astype(np.uint8)


def clouds() -> np.ndarray:
    """Noise at every scale, the coarse ones strongest: smooth as many a photograph."""
    rng = np.random.default_rng(0)
    total = np.zeros((SIDE, SIDE, 3))
    for power in range(1, 9):
        coarse = rng.integers(0, 256, (2**power, 2**power, 3), dtype=np.uint8)
        resized = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        total += np.asarray(resized) / 1.6**power
    return np.asarray(total / total.max() * 255, np.uint8)


def grainy_clouds() -> np.ndarray:
    """The same with a camera's grain."""
    grain = np.random.default_rng(1).normal(0, 4, (SIDE, SIDE, 3))
    return np.asarray((clouds() + grain).clip(0, 255), np.uint8)


def texture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def text() -> np.ndarray:
    rng = np.random.default_rng(0)
    image = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(image)
    words = ["".join(map(chr, rng.integers(97, 123, rng.integers(2, 9)))) for _ in range(2000)]
    for line in range(SIDE // 17):
        draw.text((10, 10 + 17 * line), " ".join(rng.choice(words, 24)), fill="black")
    return np.array(image)


PICTURES = (flat_shapes, decoded_shapes, gradient, clouds, grainy_clouds, texture, text)


def by_pillow(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def shortest_ms(work: Callable[[], object]) -> float:
    times_ms = []
    for _ in range(NUM_RUNS):
        before = time.thread_time()
        work()
        times_ms.append(1000 * (time.thread_time() - before))
    return min(times_ms)


def measure(name: str, pixels: np.ndarray) -> Picture:
    ms = shortest_ms(lambda: png.encode(pixels, {}))
    pillow_ms = shortest_ms(lambda: by_pillow(pixels))
    return Picture(
        name=name,
        ms=round(ms, 1),
        pillow_ms=round(pillow_ms, 1),
        time_ratio=round(ms / pillow_ms, 2),
        size_ratio=round(len(png.encode(pixels, {})) / len(by_pillow(pixels)), 3),
    )


def photographs(folder: Path) -> dict[str, np.ndarray]:
    """The pictures of a folder, mirrored until they are large enough: no detail is made up."""
    found = {}
    for file in sorted(folder.iterdir()):
        pixels = np.asarray(Image.open(file).convert("RGB"))
        while min(pixels.shape[:2]) < SIDE:
            wide = np.concatenate([pixels, pixels[:, ::-1]], axis=1)
            pixels = np.concatenate([wide, wide[::-1]], axis=0)
        found[file.stem] = pixels[:SIDE, :SIDE]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="photographs to encode as well")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    pictures = {make.__name__: make() for make in PICTURES}
    if arguments.folder is not None:
        pictures |= photographs(arguments.folder)
    measured = [measure(name, pixels) for name, pixels in pictures.items()]
    publish(Report(processor(), os.cpu_count() or 1, measured), arguments.output)


if __name__ == "__main__":
    main()
