"""How long until a fresh process takes its first compiled step, without and with a compile cache.

The process is this module: it builds FLUX.1 dev with random weights, without reading any, turns on
what the service turns on by itself, and takes a step.
"""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial

import torch

from benchmarks.gpu_flux import Ladder, inputs_of
from benchmarks.random_modules import random_module
from benchmarks.rows import Bench, Row, Subject, said
from benchmarks.workloads import FULL, TINY
from models.execution.apply import Subject as RunSubject
from models.execution.apply import apply
from models.execution.execution import LOSSLESS
from models.flux.backbone import FluxBackbone

TIMEOUT_S = 180
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
CASE = "cold start to the first compiled step"


def measure(bench: Bench) -> None:
    """Start two processes one after the other, which share a cache that is empty at first."""
    with tempfile.TemporaryDirectory() as directory:
        for execution in ("empty compile cache", "compile cache"):
            subject = Subject(CASE, execution=execution)
            try:
                bench.report(Row(subject, first_s=_start(directory)))
            except subprocess.SubprocessError as error:
                bench.skip(subject, said(error))


def _start(cache_directory: str) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_cold_start"],
        env={**os.environ, CACHE_VARIABLE: cache_directory},
        timeout=TIMEOUT_S,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return round(time.perf_counter() - started, 1)


def main() -> None:
    has_gpu = torch.cuda.is_available()
    workload, device = (FULL, torch.device("cuda")) if has_gpu else (TINY, torch.device("cpu"))
    dtype = torch.bfloat16
    case = workload.flux[0]
    build = partial(FluxBackbone, **case.config, dtype=dtype)  # type: ignore[arg-type]
    backbone = random_module(build, device, dtype)
    ladder = Ladder(Bench(device, 1.0, lambda _: None), backbone, workload)
    size = inputs_of(ladder, case, case.sizes[0])
    call = partial(ladder.step_of, size)
    apply(RunSubject(backbone, "predict", call, device, workload.compile_backend), LOSSLESS)
    call(1)


if __name__ == "__main__":
    main()
