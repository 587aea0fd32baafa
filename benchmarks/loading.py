"""How fast and how lean is loading? `python -m benchmarks.loading [--output FILE]`.

Writes random checkpoints of about 2 GB in every format, then loads each with `from_preset` and, in
turn, just reads the same files into memory. Every measurement runs in a process of its own on a
warm page cache: the speed is the median ratio of neighbouring pairs, the peak what the process
needed beyond its imports, over the bytes of the weights it ended with.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.machine import processor
from models import Backbone, FluxBackbone, ViTBackbone
from models.flux.formats.diffusers_weights import to_diffusers

STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Once:
    """One measurement in one process."""

    seconds: float
    peak_bytes: int  # beyond the imports
    weights_bytes: int


@dataclass(frozen=True, slots=True)
class Loading:
    """Medians over the repetitions of one format."""

    file_gb: float
    load_s: float
    read_s: float
    speed_of_reading: float  # the median of neighbouring pairs
    peak_of_weights: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    repetitions: int
    formats: dict[str, Loading]


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint to write, and how it is loaded."""

    write: Callable[[Path, float], None]  # the directory, and the size as a part of 2 GB
    dtype: str


def random_state(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}


def vision_transformer(scale: float, dtype: torch.dtype) -> ViTBackbone:
    """Build a ViT of ViT-Huge's width with random weights; 25 layers are 2 GB of float32."""
    with torch.device("meta"):
        backbone = ViTBackbone((224, 224, 3), 14, max(1, round(25 * scale)), 16, 1280, 5120)
    backbone.load_state_dict(random_state(backbone, dtype), assign=True)
    return backbone


def write_safetensors(directory: Path, scale: float) -> None:
    vision_transformer(scale, torch.float32).save_to_preset(directory, weights_format="safetensors")


def write_half_safetensors(directory: Path, scale: float) -> None:
    vision_transformer(2 * scale, torch.bfloat16).save_to_preset(
        directory, weights_format="safetensors"
    )


def write_keras(directory: Path, scale: float) -> None:
    vision_transformer(scale, torch.float32).save_to_preset(directory)


def write_diffusers(directory: Path, scale: float) -> None:
    """Write a Flux transformer of the true width; five single blocks are 2 GB of bfloat16."""
    num_single = max(1, round(5 * scale))
    config = {
        "_class_name": "FluxTransformer2DModel",
        "num_layers": 1,
        "num_single_layers": num_single,
        "guidance_embeds": True,
    }
    with torch.device("meta"):
        backbone = FluxBackbone(64, 3072, 4.0, 24, 1, num_single, (16, 56, 56), 10_000, True, True)
    state = to_diffusers(random_state(backbone, torch.bfloat16), backbone.hidden_size)
    (directory / "transformer").mkdir(parents=True)
    (directory / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (directory / "transformer" / "config.json").write_text(json.dumps(config))
    save_file(state, directory / "transformer" / "diffusion_pytorch_model.safetensors")


CASES = {
    "safetensors, float32": Case(write_safetensors, "float32"),
    "safetensors, bfloat16": Case(write_half_safetensors, "bfloat16"),
    "KerasHub H5, float32": Case(write_keras, "float32"),
    "diffusers Flux, bfloat16": Case(write_diffusers, "bfloat16"),
    "safetensors, float32 as bfloat16": Case(write_safetensors, "bfloat16"),
}


def weights_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.suffix in {".safetensors", ".h5"})


def resident_bytes(key: str) -> int:
    """Read `VmRSS` (now) or `VmHWM` (the peak)."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} has no {key}")


def load_once(directory: Path, dtype: str) -> Once:
    with torch.device("meta"):
        Backbone.from_preset(directory, load_weights=False)  # imports what this format needs
    before = resident_bytes("VmRSS")
    started = time.perf_counter()
    backbone = Backbone.from_preset(directory, dtype=dtype)
    seconds = time.perf_counter() - started
    num_bytes = sum(each.nbytes for each in backbone.state_dict().values())
    return Once(seconds, resident_bytes("VmHWM") - before, num_bytes)


def read_once(directory: Path) -> Once:
    """Read every byte of the weights' files into fresh memory."""
    before, total = resident_bytes("VmRSS"), 0
    started = time.perf_counter()
    contents = []
    for path in weights_files(directory):
        content = torch.empty(path.stat().st_size, dtype=torch.uint8)
        unread = content.numpy().data
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(unread):
                unread = unread[count:]
        contents.append(content)
        total += len(content)
    seconds = time.perf_counter() - started
    return Once(seconds, resident_bytes("VmHWM") - before, total)


def in_own_process(action: str, directory: Path, dtype: str) -> Once:
    command = [sys.executable, "-m", "benchmarks.loading", "--once", action, dtype, str(directory)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return Once(**json.loads(finished.stdout))


def measure(case: Case, directory: Path, repetitions: int) -> Loading:
    loads, reads = [], []
    in_own_process("read", directory, case.dtype)  # warms the page cache
    for _ in range(repetitions):
        loads.append(in_own_process("load", directory, case.dtype))
        reads.append(in_own_process("read", directory, case.dtype))
    load_s = statistics.median(each.seconds for each in loads)
    read_s = statistics.median(each.seconds for each in reads)
    pairs = [read.seconds / load.seconds for read, load in zip(reads, loads, strict=True)]
    peak = max(each.peak_bytes / each.weights_bytes for each in loads)
    return Loading(
        file_gb=round(sum(path.stat().st_size for path in weights_files(directory)) / 1e9, 2),
        load_s=round(load_s, 3),
        read_s=round(read_s, 3),
        speed_of_reading=round(statistics.median(pairs), 2),
        peak_of_weights=round(peak, 3),
    )


def report(cases: dict[str, Case], scale: float, repetitions: int) -> Report:
    formats = {}
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as directory:
            case.write(Path(directory), scale)
            formats[name] = measure(case, Path(directory), repetitions)
    return Report(processor(), os.cpu_count() or 1, repetitions, formats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="of 2 GB")
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--once", nargs=3, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        action, dtype, directory = arguments.once
        once = load_once(Path(directory), dtype) if action == "load" else read_once(Path(directory))
        sys.stdout.write(json.dumps(asdict(once)))
        return
    measured = report(CASES, arguments.scale, arguments.repetitions)
    text = json.dumps(asdict(measured), indent=2)
    sys.stdout.write(text + "\n")
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
