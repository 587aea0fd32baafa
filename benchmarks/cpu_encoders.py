"""How fast are ViT and FNet on this CPU? `python -m benchmarks.cpu_encoders [--output FILE]`.

ViT-B/16 at 224 pixels and FNet base at 128 and 512 tokens, of random weights, by us and by
transformers, timm, KerasHub on torch, ONNX Runtime and OpenVINO: the same weights, inputs and
number of threads. Each computes in a process of its own, one of them at a time, in turn, so that
what else the machine does hits them alike. The limit is the fastest matrix product of the same
minutes. `python -m benchmarks.peers.install runtimes` installs the last four.
"""

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import flops
from benchmarks.cpu_products import Products
from benchmarks.machine import processor
from benchmarks.peers import install
from benchmarks.peers.encoders import (
    FAMILIES,
    KERAS_SUFFIX,
    NUM_THREADS,
    RUNTIMES,
    Case,
    Family,
    Precision,
)
from benchmarks.peers.line_protocol import Contestant, Outputs, UnavailableError
from benchmarks.reports import publish, table_of
from models import FNetBackbone, ViTBackbone
from models.vit.image_classifier import ImageClassifier

LOGGER = logging.getLogger(__name__)

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
OURS = "triptych"
OWN_ENVIRONMENT = (OURS, "transformers")  # these run where this command does
NOT_INSTALLED = "not installed: python -m benchmarks.peers.install runtimes"
TURN_S = 0.25  # how long a contestant computes at once, at least one run
MAX_RUNS = 20
# rounding alone keeps them above; another computation, such as another GELU or norm, does not
SAME_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "int8": 0.999}


@dataclass(frozen=True, slots=True)
class Workload:
    """The models' sizes, as transformers' configurations name them, and what is asked of them."""

    vit: Mapping[str, object] = field(default_factory=dict)  # transformers' default is ViT-B/16
    fnet: Mapping[str, object] = field(default_factory=dict)  # and FNet base
    num_classes: int = 1000
    families: Sequence[Family] = FAMILIES
    precisions: Sequence[Precision] = PRECISIONS
    batch_sizes: Sequence[int] = (1, 8)
    num_tokens: Sequence[int] = (128, 512)
    products: Sequence[tuple[int, int, int]] = (  # rows, width, width out
        (1576, 768, 3072),
        (1576, 3072, 768),
        (2048, 2048, 2048),
    )
    num_rounds: int = 5
    case_limit_s: float = 10.0  # no round begins later than this in its case, but the first


@dataclass(frozen=True, slots=True)
class Row:
    """What one runtime did with one case; times of one forward of the whole batch.

    `of_limit` and `gflops` are those of its fastest run, as the limit is of the fastest product.
    """

    case: Case
    runtime: str
    num_runs: int = 0
    median_s: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    items_per_s: float | None = None  # by the median
    ours_over_it: float | None = None  # of items a second
    gflops: float | None = None
    of_limit: float | None = None
    cosine: float | None = None  # of outputs with transformers' in float32, the lowest of the batch
    top_1_agreement: float | None = None  # of ViT
    is_same: bool | None = None
    unavailable: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_cores: int
    num_threads: int
    load_average: float
    peers: Mapping[str, str]  # versions
    product_gflops: Mapping[str, float]  # the fastest of each precision: the limit
    rows: Sequence[Row]


def write_models(folder: Path, workload: Workload) -> None:
    """Write one random model of each family, in transformers' format and in KerasHub's."""
    from transformers import FNetConfig, FNetModel, ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    labels = {number: f"class {number}" for number in range(workload.num_classes)}
    ids = {label: number for number, label in labels.items()}
    vit_config = ViTConfig(**workload.vit, id2label=labels, label2id=ids)
    ViTForImageClassification(vit_config).save_pretrained(folder / "vit")
    FNetModel(FNetConfig(**workload.fnet)).save_pretrained(folder / "fnet")
    classifier = ImageClassifier.from_preset(folder / "vit")
    classifier.save_to_preset(folder / f"vit{KERAS_SUFFIX}")
    FNetBackbone.from_preset(folder / "fnet").save_to_preset(folder / f"fnet{KERAS_SUFFIX}")


def write_inputs(folder: Path, cases: Sequence[Case]) -> None:
    """Write random images [B, C, H, W], or random token ids [B, L]."""
    vit, fnet = backbones(folder)
    height, width, channels = (side or 0 for side in vit.image_shape)  # no side is None here
    rng = np.random.default_rng(0)
    for case in cases:
        images = (case.batch_size, channels, height, width)
        tokens = (case.batch_size, case.num_tokens)
        np.save(
            case.inputs_file(folder),
            rng.standard_normal(images, dtype=np.float32)
            if case.family == "vit"
            else rng.integers(fnet.vocabulary_size, size=tokens),
        )


def backbones(folder: Path) -> tuple[ViTBackbone, FNetBackbone]:
    """Without their weights: for sizes alone."""
    with torch.device("meta"):
        vit = ViTBackbone.from_preset(folder / "vit", load_weights=False)
        fnet = FNetBackbone.from_preset(folder / "fnet", load_weights=False)
    return vit, fnet


def cases_of(workload: Workload) -> list[Case]:
    return [
        Case(family, precision, batch_size, num_tokens)
        for family in workload.families
        for precision in workload.precisions
        for num_tokens in ((0,) if family == "vit" else workload.num_tokens)
        for batch_size in workload.batch_sizes
    ]


@dataclass(slots=True)
class Measured:
    """What came of one contestant in one case."""

    outputs: Outputs | None = None
    times_s: list[float] = field(default_factory=list)
    runs_a_turn: int = 1
    unavailable: str | None = None


def measure_case(
    case: Case, contestants: Mapping[str, Contestant], workload: Workload, products: Products
) -> dict[str, Measured]:
    """Have every contestant load the case, then compute it in turn."""
    measured = {runtime: Measured() for runtime in contestants}
    for contestant in contestants.values():
        contestant.begin_load(str(case))
    for runtime, contestant in contestants.items():
        try:
            measured[runtime].outputs = contestant.loaded()
        except UnavailableError as error:
            measured[runtime].unavailable = str(error)
    running = [runtime for runtime in contestants if measured[runtime].outputs is not None]
    for runtime in running:
        [first_s] = contestants[runtime].run(1)  # not counted: it warms up
        measured[runtime].runs_a_turn = min(MAX_RUNS, max(1, round(TURN_S / first_s)))
    LOGGER.info("event=loaded running=%s", ",".join(running))
    started = time.monotonic()
    for number in range(workload.num_rounds):
        if number and time.monotonic() - started > workload.case_limit_s:
            break
        products.measure(case.precision)
        for runtime in running[number % len(running) :] + running[: number % len(running)]:
            turn = contestants[runtime].run(measured[runtime].runs_a_turn)
            measured[runtime].times_s += turn
    return measured


def rows_of(
    case: Case, measured: Mapping[str, Measured], expected: Outputs | None, num_flop: int
) -> Iterator[Row]:
    """Say what came of a case; `of_limit` is still open."""
    ours = measured[OURS].times_s
    for runtime, result in measured.items():
        if result.outputs is None:
            yield Row(case, runtime, unavailable=result.unavailable)
            continue
        median_s = statistics.median(result.times_s)
        cosine = None if expected is None else _lowest_cosine(result.outputs, expected)
        yield Row(
            case,
            runtime,
            num_runs=len(result.times_s),
            median_s=_rounded(median_s),
            min_s=_rounded(min(result.times_s)),
            max_s=_rounded(max(result.times_s)),
            items_per_s=_rounded(case.batch_size / median_s),
            ours_over_it=_rounded(median_s / statistics.median(ours)) if ours else None,
            gflops=_rounded(1e-9 * num_flop * case.batch_size / min(result.times_s)),
            cosine=None if cosine is None else round(cosine, 7),
            top_1_agreement=_agreement(case, result.outputs, expected),
            is_same=None if cosine is None else cosine >= SAME_COSINE[case.precision],
        )


def measure(workload: Workload, runtimes: Sequence[str], peers: Path) -> Report:
    load_average, products = os.getloadavg()[0], Products(workload.products)
    python = install.interpreter(peers, "runtimes")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        write_models(folder, workload)
        cases = cases_of(workload)
        write_inputs(folder, cases)
        vit, fnet = backbones(folder)
        contestants = {
            runtime: stack.enter_context(contestant(runtime, folder, environment))
            for runtime in runtimes
            if (environment := _environment(runtime, python)) is not None
        }
        references: dict[tuple[Family, int, int], Outputs] = {}
        for case in cases:
            LOGGER.info("event=measure case=%r", str(case))
            measured = measure_case(case, contestants, workload, products)
            inputs = (case.family, case.batch_size, case.num_tokens)
            if case.precision == "float32" and "transformers" in measured:
                outputs = measured["transformers"].outputs
                if outputs is not None:
                    references[inputs] = outputs
            is_vit = case.family == "vit"
            num_flop = flops.vit(vit) if is_vit else flops.fnet(fnet, case.num_tokens)
            rows += rows_of(case, measured, references.get(inputs), num_flop)
            rows += (
                Row(case, runtime, unavailable=NOT_INSTALLED)
                for runtime in runtimes
                if runtime not in contestants
            )
    return Report(
        machine=processor(),
        num_cores=os.cpu_count() or 1,
        num_threads=NUM_THREADS,
        load_average=round(load_average, 2),
        peers=install.pinned("runtimes"),
        product_gflops=products.rounded(),
        rows=[_with_limit(row, products) for row in rows],
    )


def contestant(runtime: str, folder: Path, python: Path) -> Contestant:
    arguments = ("-m", "benchmarks.peers.encoders", runtime, str(folder))
    return Contestant(python, arguments, log=folder / f"{runtime}.log")


def table(report: Report) -> str:
    header = ("case", "runtime", "items/s", "spread", "ours/it", "of limit", "cosine", "top 1", "")
    rows = [
        (
            str(row.case),
            row.runtime,
            row.items_per_s,
            _spread(row),
            row.ours_over_it,
            row.of_limit,
            row.cosine,
            row.top_1_agreement,
            row.unavailable or ("" if row.is_same is not False else "computes something else"),
        )
        for row in report.rows
    ]
    limits = ", ".join(f"{key} {value} GFLOP/s" for key, value in report.product_gflops.items())
    return f"{table_of(header, rows)}limit, the fastest matrix product: {limits}\n"


def _environment(runtime: str, python: Path | None) -> Path | None:
    return Path(sys.executable) if runtime in OWN_ENVIRONMENT else python


def _with_limit(row: Row, products: Products) -> Row:
    if row.gflops is None:
        return row
    return replace(row, of_limit=products.share(row.case.precision, row.gflops))


def _lowest_cosine(outputs: Outputs, expected: Outputs) -> float:
    """Of the items of a batch."""
    ours, theirs = (array.reshape(len(array), -1).astype(float) for array in (outputs, expected))
    products = (ours * theirs).sum(axis=1)
    return float((products / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)).min())


def _agreement(case: Case, outputs: Outputs, expected: Outputs | None) -> float | None:
    if case.family != "vit" or expected is None:
        return None
    return float((outputs.argmax(axis=1) == expected.argmax(axis=1)).mean())


def _spread(row: Row) -> str | None:
    if row.median_s is None or row.min_s is None or row.max_s is None:
        return None
    return f"-{1 - row.min_s / row.median_s:.0%} +{row.max_s / row.median_s - 1:.0%}"


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtimes", nargs="+", choices=[*RUNTIMES], default=[*RUNTIMES])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--peers-folder", type=Path, default=install.FOLDER)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    workload = Workload(families=arguments.families, precisions=arguments.precisions)
    report = measure(workload, arguments.runtimes, arguments.peers_folder)
    publish(report, arguments.output, table(report))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    main()
