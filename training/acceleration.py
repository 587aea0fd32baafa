"""bfloat16 autocast and torch.compile, where the processor and a compiler allow them."""

import shutil
from typing import cast

import torch
from torch import nn


def native_autocast() -> torch.autocast:
    """Autocast to bfloat16 where the processor has it; elsewhere that is far slower."""
    can = torch.cpu.get_capabilities()
    return torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    )


def compiled(module: nn.Module) -> nn.Module:
    """Compile where there is a compiler, a fifth off a step of the Flux; weights are shared."""
    if shutil.which("g++") is not None:
        module = cast("nn.Module", torch.compile(module, dynamic=False))
    return module
