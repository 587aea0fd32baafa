"""Weights laid out once for the processor's matrix products: for inference on the CPU.

In bfloat16 and int8 the products alone are rounded: what they are added to, and norms, stay in
float32. Knows nothing about families.
"""

import torch
from torch import nn

from models.layers import onednn
from models.layers.adapters import Linear

# elements of a weight: below, oneDNN's calls, and casts, cost more than its products gain
SMALL = {torch.float32: 1 << 16, torch.bfloat16: 1 << 14, torch.int8: 1 << 14}


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself, and so faster than float32.

    oneDNN takes bfloat16 on older processors too, and is slower for it. AMX comes with AVX-512's
    instructions for it.
    """
    return onednn.multiplies(torch.bfloat16) and torch.cpu._is_avx512_bf16_supported()


def pack_linear_layers(module: nn.Module, dtype: torch.dtype) -> None:
    """Pack the `Linear`s of a module on the CPU, for products in float32, bfloat16 or int8.

    Those stay as they are that would not gain.
    """
    for layer in module.modules():
        if isinstance(layer, Linear) and layer.weight.numel() >= SMALL[dtype]:
            layer.pack(dtype)
