"""How fast and how lean is loading? `python -m benchmarks.loading [--output FILE]`.

Writes random checkpoints of about 2 GB in every format, then loads each with `from_preset` and, in
turn, just reads the same files into memory. Every measurement runs in a process of its own on a
warm page cache: the speed is the median ratio of neighbouring pairs, the peak what the process
needed beyond its imports, over the bytes of the weights it ended with.

A Flux pipeline of about 2 GB is loaded part by part, each dropped before the next, as where another
device takes it: the peak is then over the bytes of the largest part. A device that takes each
tensor as it is read leaves the host less than that.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from benchmarks.loading_once import NO_TOKEN, Once, weights_files
from benchmarks.machine import processor
from benchmarks.reports import publish
from models import FluxBackbone, ViTBackbone
from models.flux.formats.diffusers_weights import to_diffusers

GB = 1e9


@dataclass(frozen=True, slots=True)
class Loading:
    """Medians over the repetitions of one format."""

    file_gb: float
    load_s: float
    read_s: float
    speed_of_reading: float  # the median of neighbouring pairs
    peak_of_weights: float


@dataclass(frozen=True, slots=True)
class PartByPart:
    """The largest peak over the repetitions of a pipeline whose parts go in turn."""

    file_gb: float
    largest_part_gb: float
    peak_of_largest_part: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    repetitions: int
    formats: dict[str, Loading]
    flux_part_by_part: PartByPart


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
    write_transformer(directory, num_heads=24, num_single=max(1, round(5 * scale)))


def write_transformer(directory: Path, num_heads: int, num_single: int) -> None:
    """Write a Flux transformer with one double block; FLUX.1 has 24 heads of 128."""
    config = {
        "_class_name": "FluxTransformer2DModel",
        "num_layers": 1,
        "num_single_layers": num_single,
        "num_attention_heads": num_heads,
        "guidance_embeds": True,
    }
    width = 128 * num_heads
    axes = (16, 56, 56)
    with torch.device("meta"):
        backbone = FluxBackbone(64, width, 4.0, num_heads, 1, num_single, axes, 10_000, True, True)
    state = to_diffusers(random_state(backbone, torch.bfloat16), backbone.hidden_size)
    (directory / "transformer").mkdir(parents=True)
    (directory / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (directory / "transformer" / "config.json").write_text(json.dumps(config))
    save_file(state, directory / "transformer" / "diffusion_pytorch_model.safetensors")


def write_pipeline(directory: Path, scale: float) -> None:
    """Write transformer, T5, CLIP and autoencoder: at 1 of FLUX.1's widths, and 2 GB of bfloat16.

    The transformer then has one double and one single block, T5 has two.
    """
    narrowing = scale**0.5  # a matrix has two sides
    write_transformer(directory, num_heads=max(1, round(24 * narrowing)), num_single=1)
    num_heads, width = max(1, round(64 * narrowing)), 32 * max(1, round(4 * narrowing))
    t5 = T5Config(
        vocab_size=64,
        d_model=64 * num_heads,
        d_ff=160 * num_heads,
        num_heads=num_heads,
        num_layers=2,
        feed_forward_proj="gated-gelu",
    )
    clip = CLIPTextConfig(vocab_size=64, bos_token_id=None, eos_token_id=NO_TOKEN)
    with torch.device("meta"):
        modules = {
            "text_encoder": CLIPTextModel(clip),
            "text_encoder_2": T5EncoderModel(t5),
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(width, 2 * width, 4 * width, 4 * width),
                layers_per_block=2,
                latent_channels=16,
                shift_factor=0.1159,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
        }
    for folder, module in modules.items():
        module.load_state_dict(random_state(module, torch.bfloat16), assign=True)
        module.save_pretrained(directory / folder)


CASES = {
    "safetensors, float32": Case(write_safetensors, "float32"),
    "safetensors, bfloat16": Case(write_half_safetensors, "bfloat16"),
    "KerasHub H5, float32": Case(write_keras, "float32"),
    "diffusers Flux, bfloat16": Case(write_diffusers, "bfloat16"),
    "safetensors, float32 as bfloat16": Case(write_safetensors, "bfloat16"),
}


def in_own_process(action: str, directory: Path, dtype: str) -> Once:
    command = [sys.executable, "-m", "benchmarks.loading_once", action, dtype, str(directory)]
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
        file_gb=round(sum(path.stat().st_size for path in weights_files(directory)) / GB, 2),
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
    parts = measure_parts(scale, repetitions)
    return Report(processor(), os.cpu_count() or 1, repetitions, formats, parts)


def measure_parts(scale: float, repetitions: int) -> PartByPart:
    with tempfile.TemporaryDirectory() as directory:
        write_pipeline(Path(directory), scale)
        runs = [in_own_process("parts", Path(directory), "-") for _ in range(repetitions)]
        num_bytes = sum(path.stat().st_size for path in weights_files(Path(directory)))
    return PartByPart(
        file_gb=round(num_bytes / GB, 2),
        largest_part_gb=round(runs[0].weights_bytes / GB, 2),
        peak_of_largest_part=round(max(run.peak_bytes / run.weights_bytes for run in runs), 3),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="of 2 GB")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    measured = report(CASES, arguments.scale, arguments.repetitions)
    publish(measured, arguments.output)


if __name__ == "__main__":
    main()
