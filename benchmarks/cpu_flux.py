"""How fast is a Flux step on this CPU? `python -m benchmarks.cpu_flux [--output FILE]`.

A transformer 1,024 wide, of 4 double and 8 single blocks and random weights: ours as the worker
steps rows, and diffusers' around the same tensors as its pipeline calls it, eager and with its
repeated blocks compiled. All take the same steps in turn, so that what else the machine does hits
them alike. The limit is the fastest matrix product of the same minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import flops
from benchmarks.cpu_products import Products, seconds_of
from benchmarks.gpu_flux import diffusers_transformer
from benchmarks.machine import processor
from benchmarks.random_modules import random_module
from benchmarks.reports import publish, table_of
from benchmarks.rows import said
from models import FluxBackbone
from models.flux import latents
from models.flux.conditioning import Conditioning
from models.flux.latents import PIXELS_PER_PATCH
from models.flux.rows import PaintRow, step_rows
from models.layers.packing import has_fast_bfloat16

OURS, EAGER, COMPILED = "triptych", "diffusers", "diffusers compiled"
NUM_THREADS = 2
GUIDANCE = 4.0  # times 1,000 exact in bfloat16, to which diffusers rounds it before embedding
SIGMAS = (1.0, 0.5, 0.0)  # of a run of two steps
NUM_STEPS = len(SIGMAS) - 1
PRODUCTS = ((1152, 1024, 7168), (1152, 5120, 1024), (384, 1024, 4096))  # rows, from, to
CONFIG: dict[str, object] = {
    "input_channels": 64,
    "hidden_size": 1024,
    "mlp_ratio": 4.0,
    "num_heads": 8,
    "depth": 4,
    "depth_single_blocks": 8,
    "axes_dim": (16, 56, 56),
    "theta": 10_000,
    "use_bias": True,
    "guidance_embed": True,
    "gelu_approximate": "tanh",
}

Run = Callable[[], Tensor]  # a run of steps, which gives the velocities of the first, [B, S, 64]


def fast_dtypes() -> Sequence[str]:
    """What this processor multiplies natively; where it emulates bfloat16, a step takes minutes."""
    return ("float32", "bfloat16") if has_fast_bfloat16() else ("float32",)


@dataclass(frozen=True, slots=True)
class Workload:
    """The model's arguments, and what is asked of it."""

    config: Mapping[str, object] = field(default_factory=lambda: CONFIG)
    dtypes: Sequence[str] = field(default_factory=fast_dtypes)
    sides: Sequence[int] = (16, 32)  # in patches: 256 and 1,024
    num_rows: Sequence[int] = (1, 4)
    num_text_tokens: int = 128
    num_rounds: int = 5
    case_limit_s: float = 60.0  # no round begins later than this in its case, but the first
    compiles: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """What one implementation did with one case; times of one step of all rows.

    `of_limit` and `gflops` are those of its fastest run, as the limit is of the fastest product.
    """

    dtype: str
    num_patches: int
    num_rows: int
    implementation: str
    num_runs: int = 0
    median_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    ours_over_it: float | None = None  # of steps a second
    gflops: float | None = None
    of_limit: float | None = None
    difference: float | None = None  # of velocities from diffusers' eager ones, relative, in L2
    unavailable: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    num_threads: int
    load_average: float
    product_gflops: Mapping[str, float]  # the fastest of each dtype: the limit
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs of one step, for each row its own.

    patches [B, S, 64] float32, text [B, T, 4096], pooled [B, 768]
    """

    side: int
    patches: Tensor
    text: Tensor
    pooled: Tensor

    @classmethod
    def random(cls, backbone: FluxBackbone, side: int, num_rows: int, num_text_tokens: int) -> Case:
        dtype = backbone.img_in.weight.dtype
        y_width = backbone.vector_in.in_layer.in_features
        return cls(
            side,
            torch.randn(num_rows, side**2, backbone.input_channels),
            torch.randn(num_rows, num_text_tokens, backbone.txt_in.in_features, dtype=dtype),
            torch.randn(num_rows, y_width, dtype=dtype),
        )

    @property
    def image_ids(self) -> Tensor:
        """[1, S, 3]"""
        return latents.image_ids(self.side * PIXELS_PER_PATCH, self.side * PIXELS_PER_PATCH)

    @property
    def text_ids(self) -> Tensor:
        """[1, T, 3]"""
        return torch.zeros(1, self.text.shape[1], 3)


def our_run(backbone: FluxBackbone, case: Case) -> Run:
    """Begin rows, and step them to their end, as the worker does."""

    def run() -> Tensor:
        rotations = backbone.rotations(case.image_ids, case.text_ids)[0]
        rows = [_row(case, number, rotations) for number in range(len(case.patches))]
        step_rows(backbone, rows, loras={})
        velocities = [row.velocity for row in rows if row.velocity is not None]
        while not rows[0].is_done:
            step_rows(backbone, rows, loras={})
        return torch.stack(velocities)

    return run


def _row(case: Case, number: int, rotations: Tensor) -> PaintRow:
    return PaintRow(
        width=case.side * PIXELS_PER_PATCH,
        height=case.side * PIXELS_PER_PATCH,
        sigmas=SIGMAS,
        conditioning=Conditioning(case.text[number], case.pooled[number]),
        guidance=GUIDANCE,
        classifier_free=None,
        loras={},
        rotations=rotations,
        patches=case.patches[number],
    )


def their_run(transformer: nn.Module, case: Case) -> Run:
    """Call the transformer as diffusers' FluxPipeline does in its loop."""
    num_rows = len(case.patches)
    image_ids, text_ids = case.image_ids[0], case.text_ids[0]
    guidance = torch.full((num_rows,), GUIDANCE)

    def velocities(patches: Tensor, sigma: float) -> Tensor:
        predicted: Tensor = transformer(
            hidden_states=patches.to(case.text.dtype),
            img_ids=image_ids,
            encoder_hidden_states=case.text,
            txt_ids=text_ids,
            pooled_projections=case.pooled,
            timestep=torch.full((num_rows,), sigma),
            guidance=guidance,
            return_dict=False,
        )[0]
        return predicted.float()

    def run() -> Tensor:
        patches, predicted = case.patches, []
        for sigma, following in pairwise(SIGMAS):
            predicted.append(velocities(patches, sigma))
            patches = patches + (following - sigma) * predicted[-1]
        return predicted[0]

    return run


@torch.inference_mode()
def measure(workload: Workload) -> Report:
    torch.set_num_threads(NUM_THREADS)
    torch.manual_seed(0)
    load_average = os.getloadavg()[0]
    products = Products(PRODUCTS)
    measured = [
        row for dtype in workload.dtypes for row in _measure_dtype(workload, dtype, products)
    ]
    rows = [_with_limit(row, products) for row in measured]
    return Report(
        processor(), os.cpu_count() or 1, NUM_THREADS, load_average, products.rounded(), rows
    )


def _measure_dtype(workload: Workload, name: str, products: Products) -> list[Row]:
    """Measure all cases; the share of the limit is known only when all are done."""
    dtype: torch.dtype = getattr(torch, name)

    def build() -> FluxBackbone:
        return FluxBackbone(**workload.config, dtype=dtype)  # type: ignore[arg-type]

    backbone = random_module(build, torch.device("cpu"), dtype)
    transformers = {EAGER: diffusers_transformer(backbone)}
    if workload.compiles:
        compiled = diffusers_transformer(backbone)
        compiled.compile_repeated_blocks(fullgraph=True)  # type: ignore[operator]
        transformers[COMPILED] = compiled
    found: list[Row] = []
    for side, num_rows in product(workload.sides, workload.num_rows):
        case = Case.random(backbone, side, num_rows, workload.num_text_tokens)
        runs = {OURS: our_run(backbone, case)}
        runs |= {name: their_run(each, case) for name, each in transformers.items()}
        num_flop = num_rows * flops.flux_step(backbone, side**2, workload.num_text_tokens)
        found += _measure_case(workload, name, case, runs, num_flop, products)
    return found


def _measure_case(
    workload: Workload,
    dtype: str,
    case: Case,
    runs: Mapping[str, Run],
    num_flop: int,
    products: Products,
) -> Iterator[Row]:
    outputs: dict[str, Tensor] = {}
    unavailable: dict[str, str] = {}
    for name, run in runs.items():  # not timed: it warms up, and compiles
        try:
            outputs[name] = run()
        except Exception as error:  # no compiler
            unavailable[name] = said(error)
    times_ms: dict[str, list[float]] = {name: [] for name in outputs}
    started = time.monotonic()
    for number in range(workload.num_rounds):
        if number and time.monotonic() - started > workload.case_limit_s:
            break
        for name in outputs:
            times_ms[name].append(seconds_of(runs[name]) / NUM_STEPS * 1e3)
        products.measure(dtype)
    medians = {name: statistics.median(times) for name, times in times_ms.items()}
    for name in runs:
        subject = Row(dtype, case.side**2, len(case.patches), name)
        if name in unavailable:
            yield replace(subject, unavailable=unavailable[name])
            continue
        yield replace(
            subject,
            num_runs=len(times_ms[name]),
            median_ms=round(medians[name], 1),
            min_ms=round(min(times_ms[name]), 1),
            max_ms=round(max(times_ms[name]), 1),
            ours_over_it=round(medians[name] / medians[OURS], 3),
            gflops=round(num_flop / min(times_ms[name]) / 1e6, 1),
            difference=float(f"{_difference(outputs[name], outputs[EAGER]):.2g}"),
        )


def _with_limit(row: Row, products: Products) -> Row:
    if row.gflops is None:
        return row
    return replace(row, of_limit=products.share(row.dtype, row.gflops))


def _difference(output: Tensor, expected: Tensor) -> float:
    apart = torch.linalg.vector_norm(output - expected)
    return float(apart / torch.linalg.vector_norm(expected))


def table(report: Report) -> str:
    header = ("dtype", "patches", "rows", "", "ms a step", "ours / it", "GFLOP/s", "of limit", "")
    cells = [
        (
            row.dtype,
            row.num_patches,
            row.num_rows,
            row.implementation,
            row.median_ms,
            row.ours_over_it,
            row.gflops,
            row.of_limit,
            row.unavailable or "",
        )
        for row in report.rows
    ]
    limits = ", ".join(f"{name} {gflops}" for name, gflops in report.product_gflops.items())
    return f"{table_of(header, cells)}limit, the fastest product, GFLOP/s: {limits}\n"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    output = parser.parse_args(arguments).output
    report = measure(Workload())
    publish(report, output, table(report))


if __name__ == "__main__":
    main(sys.argv[1:])
