"""The limit of a CPU: the fastest matrix product that it was seen to do, by torch's or oneDNN's."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch.nn import functional as F

from models.layers import onednn
from models.layers.adapters import Linear


@dataclass(slots=True)
class Products:
    """The fastest of each dtype until now, measured between what is compared with it.

    shapes  rows, width, width out
    """

    shapes: Sequence[tuple[int, int, int]]
    gflops: dict[str, float] = field(default_factory=dict)

    @torch.inference_mode()
    def measure(self, dtype: str) -> None:
        """Multiply each shape twice by F.linear, by oneDNN, and by oneDNN with a packed weight."""
        for num_rows, width, out_width in self.shapes:
            x = torch.randn(num_rows, width, dtype=getattr(torch, dtype))
            for multiply in _ways(x, out_width):
                seconds = min(seconds_of(multiply) for _ in range(2))
                reached = 2e-9 * num_rows * width * out_width / seconds
                self.gflops[dtype] = max(self.gflops.get(dtype, 0.0), reached)

    def share(self, dtype: str, gflops: float) -> float:
        return round(gflops / self.gflops[dtype], 3)

    def rounded(self) -> dict[str, float]:
        return {dtype: round(gflops, 1) for dtype, gflops in self.gflops.items()}


def _ways(x: torch.Tensor, out_width: int) -> list[Callable[[], object]]:
    weight = torch.randn(out_width, x.shape[1], dtype=x.dtype)
    ways: list[Callable[[], object]] = [partial(F.linear, x, weight)]
    if onednn.multiplies(x.dtype):
        packed = Linear(x.shape[1], out_width, bias=False)
        packed.pack(x.dtype)
        ways += [partial(onednn.linear, x, weight, None), partial(packed, x)]
    return ways


def seconds_of(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
