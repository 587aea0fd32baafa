"""What does a photograph cost before it is classified? `python -m benchmarks.photographs`.

A photograph of 12 megapixels, as JPEG, PNG and WebP, is decoded and made the model's input: by
this service for `vit_shapes`, by this service with the settings of transformers' ViT, and by
transformers' Pillow processor with the same. Each in a process of its own with one thread, in
turn; medians, and the memory that the first photograph takes beyond its file and the imports.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.loading_once import resident_bytes
from benchmarks.machine import processor
from benchmarks.png import grainy_clouds
from benchmarks.reports import publish, table_of

WIDTH, HEIGHT = 4000, 3000
FORMATS = ("JPEG", "PNG", "WEBP")
NUM_RUNS = 5  # in a process, after the first
MB = 1e6

Prepare = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Once:
    """One process: milliseconds in the median, megabytes at most."""

    ms: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Photograph:
    """Medians over the rounds; `time_ratio` is against transformers in the same round."""

    format: str
    file_mb: float
    prepared_by: str
    ms: float
    time_ratio: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    width: int
    height: int
    num_rounds: int
    photographs: list[Photograph]


def ours() -> Prepare:
    from models.vit.image_classifier import ImageClassifier
    from worker.image_decoding import decode_image

    classifier = ImageClassifier.from_preset("vit_shapes")
    return lambda content: classifier.preprocess(decode_image(content))


def ours_like_transformers() -> Prepare:
    from models.vit.formats.image_converter_transformers import (
        ProcessorConfig,
        TransformersConverter,
    )
    from worker.image_decoding import decode_image

    converter = TransformersConverter(ProcessorConfig())
    return lambda content: converter(decode_image(content))


def theirs() -> Prepare:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    default = ViTImageProcessorPil()

    def prepare(content: bytes) -> object:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        return default(image, return_tensors="pt")

    return prepare


TRANSFORMERS = "transformers"
WAYS: dict[str, Callable[[], Prepare]] = {
    "triptych, vit_shapes": ours,
    "triptych, as transformers": ours_like_transformers,
    TRANSFORMERS: theirs,
}


def write_photograph(directory: Path, format_: str) -> Path:
    """Smooth and grainy, mirrored to the size of a camera's."""
    pixels = grainy_clouds()
    wide = np.concatenate([pixels, pixels[:, ::-1]] * 2, axis=1)
    high = np.concatenate([wide, wide[::-1], wide])
    file = directory / f"photograph.{format_.lower()}"
    Image.fromarray(high[:HEIGHT, :WIDTH]).save(file, format_, quality=90)
    return file


def prepare_once(way: str, file: Path) -> Once:
    prepare, content = WAYS[way](), file.read_bytes()
    small = io.BytesIO()
    Image.new("RGB", (64, 64)).save(small, file.suffix[1:])
    prepare(small.getvalue())  # imports what this format needs
    before = resident_bytes("VmRSS")
    prepare(content)
    peak = resident_bytes("VmHWM") - before
    times_ms = []
    for _ in range(NUM_RUNS):
        started = time.perf_counter()
        prepare(content)
        times_ms.append(1000 * (time.perf_counter() - started))
    return Once(statistics.median(times_ms), peak / MB)


def in_own_process(way: str, file: Path) -> Once:
    command = [sys.executable, "-m", "benchmarks.photographs", "--once", way, str(file)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return Once(**json.loads(finished.stdout))


def measure(format_: str, num_rounds: int) -> list[Photograph]:
    with tempfile.TemporaryDirectory() as directory:
        file = write_photograph(Path(directory), format_)
        rounds = [{way: in_own_process(way, file) for way in WAYS} for _ in range(num_rounds)]
        file_mb = file.stat().st_size / MB
    return [
        Photograph(
            format=format_,
            file_mb=round(file_mb, 1),
            prepared_by=way,
            ms=round(statistics.median(each[way].ms for each in rounds), 1),
            time_ratio=round(
                statistics.median(each[way].ms / each[TRANSFORMERS].ms for each in rounds), 2
            ),
            peak_mb=round(statistics.median(each[way].peak_mb for each in rounds), 1),
        )
        for way in WAYS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--once", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once is not None:
        way, file = arguments.once
        torch.set_num_threads(1)
        sys.stdout.write(json.dumps(asdict(prepare_once(way, Path(file)))))
        return
    photographs = [each for format_ in FORMATS for each in measure(format_, arguments.rounds)]
    report = Report(processor(), WIDTH, HEIGHT, arguments.rounds, photographs)
    header = ("format", "file MB", "prepared by", "ms", "of transformers", "peak MB")
    rows = [tuple(asdict(each).values()) for each in photographs]
    publish(report, arguments.output, table_of(header, rows))


if __name__ == "__main__":
    main()
