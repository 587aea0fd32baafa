"""How fast a device multiplies matrices and takes what the host sends it: measured, in a moment."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_SIDE = {"cuda": 4096, "cpu": 1024}  # of the matrices: large enough to keep the device busy
_COPIED_BYTES = 2**28
_NUM_RUNS = 3


@dataclass(frozen=True, slots=True)
class DeviceSpeed:
    """flops_per_s in the dtype that models run in there; copy_bytes_per_s from pinned memory."""

    flops_per_s: float
    copy_bytes_per_s: float


def measure_speed(device: str) -> DeviceSpeed:
    kind = torch.device(device).type
    side = _SIDE[kind]
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    product_s = _fastest_s(lambda: matrix @ matrix, device)
    sent = torch.empty(_COPIED_BYTES, dtype=torch.uint8, pin_memory=kind == "cuda")
    received = torch.empty_like(sent, device=device)
    copy_s = _fastest_s(lambda: received.copy_(sent, non_blocking=True), device)
    return DeviceSpeed(2 * side**3 / product_s, _COPIED_BYTES / copy_s)


def _fastest_s(work: Callable[[], object], device: str) -> float:
    """The shortest of a few runs, as others may disturb one; the first only warms up."""
    times_s = []
    for _ in range(_NUM_RUNS + 1):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times_s.append(time.perf_counter() - start)
    return min(times_s[1:])
