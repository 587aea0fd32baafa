"""How fast is a GPU with this? `python -m benchmarks.gpu [--minutes 9] [--output FILE]`.

FLUX.1 dev and schnell, ViT-B/16 and FNet-base in their exact shapes, random bfloat16 weights made
on the device, by one lever after the other, beside diffusers and transformers where they are
installed. Needs torch, numpy, einops, pydantic, safetensors, h5py and pillow. Every row is compared
with the fastest matrix product of the same run. The most telling rows come first, and what would
begin after the minutes is left out. The file is rewritten after every row, so that a run that is
cut short keeps what it measured. Without a GPU the same rows are measured on tiny shapes, as a
check of this command and of nothing else.
"""

import argparse
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import gpu_cold_start, gpu_encoders, gpu_flux, gpu_stages
from benchmarks.machine import processor
from benchmarks.rows import NO_TIME, Bench, Row, Subject, matrix_product_tflops, said
from benchmarks.workloads import FULL, TINY, Workload
from models.execution import float8_products
from models.layers.float8_products import scaled_product
from models.layers.float8_storage import Float8Matrix

PACKAGES = ("torch", "diffusers", "transformers")


@dataclass(frozen=True, slots=True)
class Machine:
    device: str
    processor: str
    num_cores: int
    cuda: str | None
    packages: dict[str, str | None]  # None: not installed


@dataclass(frozen=True, slots=True)
class Image:
    """One image from prompt to pixels: the medians of its three stages, added up."""

    case: str
    execution: str
    denoise_s: float
    text_encode_s: float
    decode_s: float
    total_s: float


@dataclass(slots=True)
class Report:
    machine: Machine
    dtype: str
    matrix_product_tflops: dict[str, float]
    float8_product_tflops: dict[str, float]  # empty: the device has none
    records_s: dict[str, float]  # what others reached, to compare with
    rows: list[Row] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)


def run(
    workload: Workload, device: torch.device, output: Path | None, minutes: float = math.inf
) -> Report:
    ends_at = time.monotonic() + 60 * minutes
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    products = matrix_product_tflops(device, dtype, workload.matrix_products)
    dtype_name = str(dtype).removeprefix("torch.")
    in_float8 = _float8_tflops(device, workload)
    report = Report(_machine(device), dtype_name, products, in_float8, workload.records_s)

    def add(row: Row) -> None:
        report.rows.append(row)
        sys.stdout.write(_line(row) + "\n")
        _write(report, output)

    bench = Bench(device, max(products.values()), add, ends_at)
    measure_sections(bench, workload, dtype)
    report.images.extend(images(workload, report.rows))
    _write(report, output)
    return report


def measure_sections(
    bench: Bench, workload: Workload, dtype: torch.dtype, names: Collection[str] | None = None
) -> None:
    """Measure one section after the other, or those that are named."""
    for name, measure in _sections(bench, workload, dtype).items():
        if names is not None and name not in names:
            continue
        if bench.is_over:
            bench.skip(Subject(name), NO_TIME)
            continue
        try:
            measure()
        except Exception as error:  # a model that does not fit, or that an old package lacks
            bench.skip(Subject(name), said(error))
        _free(bench.device)


def _sections(
    bench: Bench, workload: Workload, dtype: torch.dtype
) -> dict[str, Callable[[], None]]:
    """Give what is measured one after the other, by name: a failure ends only its own."""
    precisions = dict.fromkeys((dtype, torch.float32))  # transformers' FNet has no bfloat16
    first, *others = (
        (case.name, partial(gpu_flux.measure_flux, bench, case, workload, dtype))
        for case in workload.flux
    )
    return dict([
        first,
        ("decode", partial(gpu_stages.measure_decoder, bench, workload, dtype)),
        ("text encode", partial(gpu_stages.measure_text_encoders, bench, workload, dtype)),
        *others,
        ("vit", partial(gpu_encoders.measure_vit, bench, workload, dtype)),
        *(
            (f"f_net, {each}", partial(gpu_encoders.measure_fnet, bench, workload, each))
            for each in precisions
        ),
        ("cold start", partial(gpu_cold_start.measure, bench)),
    ])  # fmt: skip


def images(workload: Workload, rows: list[Row]) -> list[Image]:
    """Add up the stages of one image, for every case and execution that was measured whole."""
    medians = {
        (row.subject.case, row.subject.implementation, row.subject.execution): row for row in rows
    }

    def seconds(subject: Subject) -> float | None:
        row = medians.get((subject.case, subject.implementation, subject.execution))
        return None if row is None else row.median_s

    made = []
    for case in workload.flux:
        text_s = seconds(gpu_stages.text_subject(case.num_text_tokens))
        for width, height in case.sizes:
            decode_subject = gpu_stages.decode_subject(width, height)
            for execution in ("eager", "compiled", "float8 compiled"):
                decode = "eager" if execution == "eager" else "compiled"
                decode_s = seconds(replace(decode_subject, execution=decode))
                denoise_s = seconds(gpu_flux.image_subject(case, (width, height), execution))
                if text_s and decode_s and denoise_s:
                    total_s = round(denoise_s + text_s + decode_s, 4)
                    name = gpu_flux.name(case, (width, height))
                    made.append(Image(name, execution, denoise_s, text_s, decode_s, total_s))
    return made


def _line(row: Row) -> str:
    subject = row.subject
    words = [subject.case, subject.implementation, subject.execution, subject.attention or ""]
    if row.error is not None:
        return " | ".join([*words, row.error])
    if row.median_s is None:
        return " | ".join([*words, f"{row.first_s} s once"])
    share = "" if row.of_matrix_product is None else f"{row.of_matrix_product:.0%} of the product"
    return " | ".join([*words, f"{row.median_s} s", f"{row.items_per_s} /s", share])


def _write(report: Report, output: Path | None) -> None:
    if output is None:
        return
    unfinished = output.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(report), indent=2) + "\n")
    unfinished.replace(output)


def _float8_tflops(device: torch.device, workload: Workload) -> dict[str, float]:
    """Measure products in float8, without the rounding of the factors."""
    try:
        float8_products.check_products(device, torch.bfloat16)
    except float8_products.Float8Error:
        return {}

    rounded: dict[Tensor, Float8Matrix] = {}  # once each; matrices are told apart by identity

    def multiply(left: Tensor, right: Tensor) -> Tensor:
        if left not in rounded:
            rounded.update({left: Float8Matrix.of(left), right: Float8Matrix.of(right.T)})
        return scaled_product(rounded[left], rounded[right], torch.bfloat16)

    return matrix_product_tflops(device, torch.bfloat16, workload.matrix_products, multiply)


def _free(device: torch.device) -> None:
    """Give back what the last models held, cycles included, so that peaks are their own."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _machine(device: torch.device) -> Machine:
    is_gpu = device.type == "cuda"
    return Machine(
        device=torch.cuda.get_device_name(device) if is_gpu else "cpu",
        processor=processor(),
        num_cores=os.cpu_count() or 1,
        cuda=torch.version.cuda if is_gpu else None,
        packages={package: _version(package) for package in PACKAGES},
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else "cpu")
    measured = run(FULL if has_gpu else TINY, device, arguments.output, arguments.minutes)
    for image in measured.images:
        sys.stdout.write(f"{image.case} | {image.execution} | {image.total_s} s an image\n")
    for name, seconds in measured.records_s.items():
        sys.stdout.write(f"{name} | {seconds} s an image\n")


if __name__ == "__main__":
    main()
