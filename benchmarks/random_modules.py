"""Modules of true shapes with random weights, made on the device: nothing is read or copied.

The time of a dense kernel does not depend on the weights' values; quality does, and is no matter
here.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

STD = 0.02  # as transformers are initialised: activations neither vanish nor overflow

Module = TypeVar("Module", bound=nn.Module)


def random_module(build: Callable[[], Module], device: torch.device, dtype: torch.dtype) -> Module:
    """Build a module in evaluation mode with weights around 0, scales of norms around 1."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), torch.no_grad():
            module = build()
            for name, parameter in module.named_parameters():
                is_scale = parameter.ndim == 1 and not name.endswith("bias")
                parameter.normal_(mean=1.0 if is_scale else 0.0, std=STD)
    finally:
        torch.set_default_dtype(previous)
    return module.eval().requires_grad_(False)
