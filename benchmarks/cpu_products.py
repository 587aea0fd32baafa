"""The limit of a CPU: the fastest matrix product that it was seen to do, by torch's or oneDNN's."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch.nn import functional as F

from models.layers import onednn
from models.layers.adapters import Linear
from models.layers.int8_products import Int8Matrix


@dataclass(slots=True)
class Products:
    """The fastest of each dtype until now, measured between what is compared with it.

    shapes  rows, width, width out
    """

    shapes: Sequence[tuple[int, int, int]]
    gflops: dict[str, float] = field(default_factory=dict)

    @torch.inference_mode()
    def measure(self, dtype: str) -> None:
        """Multiply each shape twice by F.linear, by oneDNN, and by oneDNN with a packed weight.

        In int8 by the last alone, of rows that are rounded already.
        """
        for num_rows, width, out_width in self.shapes:
            for multiply in _ways(num_rows, width, out_width, getattr(torch, dtype)):
                seconds = min(seconds_of(multiply) for _ in range(2))
                reached = 2e-9 * num_rows * width * out_width / seconds
                self.gflops[dtype] = max(self.gflops.get(dtype, 0.0), reached)

    def share(self, dtype: str, gflops: float) -> float:
        return round(gflops / self.gflops[dtype], 3)

    def rounded(self) -> dict[str, float]:
        return {dtype: round(gflops, 1) for dtype, gflops in self.gflops.items()}


def _ways(
    num_rows: int, width: int, out_width: int, dtype: torch.dtype
) -> list[Callable[[], object]]:
    if dtype == torch.int8:
        values = torch.randint(256, (num_rows, width), dtype=torch.uint8)
        return [partial(Int8Matrix.of(torch.randn(out_width, width)).multiply_values, values, 0)]
    x = torch.randn(num_rows, width, dtype=dtype)
    weight = torch.randn(out_width, width, dtype=dtype)
    ways: list[Callable[[], object]] = [partial(F.linear, x, weight)]
    if onednn.multiplies(dtype):
        packed = Linear(width, out_width, bias=False)
        packed.pack(dtype)
        ways += [partial(onednn.linear, x, weight, None), partial(packed, x)]
    return ways


def seconds_of(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
