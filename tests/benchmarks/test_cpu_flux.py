"""The Flux benchmark on the CPU, on a tiny model without a compiler."""

import math

import torch

from benchmarks.cpu_flux import CONFIG, EAGER, OURS, Workload, measure, table
from benchmarks.workloads import TINY_FLUX

TINY = Workload(
    config=CONFIG | TINY_FLUX,
    dtypes=("float32",),
    sides=(4,),
    num_rows=(1, 2),
    num_text_tokens=8,
    num_rounds=1,
    compiles=False,
)


def test_both_implementations_give_the_same_velocities_and_are_timed() -> None:
    num_threads = torch.get_num_threads()
    try:
        report = measure(TINY)
    finally:
        torch.set_num_threads(num_threads)
    assert [(row.num_rows, row.implementation) for row in report.rows] == [
        (1, OURS),
        (1, EAGER),
        (2, OURS),
        (2, EAGER),
    ]
    for row in report.rows:
        assert row.difference is not None
        assert row.difference < 1e-5
        assert row.of_limit is not None
        assert row.of_limit > 0
    assert len(table(report).splitlines()) == 1 + len(report.rows) + 1
    assert all(math.isfinite(gflops) for gflops in report.product_gflops.values())
