"""What makes training faster on this machine, where it has what that takes."""

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
    """Compile, where there is a compiler; a step is a fifth shorter. The weights are shared."""
    if shutil.which("g++") is not None:
        module = cast("nn.Module", torch.compile(module, dynamic=False))
    return module
