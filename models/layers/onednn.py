"""oneDNN's matrix product, asked for by name: for inference on the CPU.

F.linear leaves float32 to MKL, which knows AMD's processors less well than Intel's, and gives what
comes after a product a pass of its own over memory. Knows nothing about layers.
"""

from functools import cache
from typing import Literal

import torch
from torch import Tensor

# elements of a weight: 192 wide, laying it out at each call costs more than the product gains;
# 1,024 wide, products are 1.15 to 1.3 times as fast as MKL's on an AMD EPYC
LARGE = 1 << 19

Gelu = Literal["none", "tanh"]  # as torch's GELU names exact and approximate


@cache
def multiplies(dtype: torch.dtype) -> bool:
    """Whether this processor's oneDNN has products of this dtype; measured on x86 alone."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        has_bfloat16: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return has_bfloat16
    if dtype == torch.int8:  # without VNNI they are slower than those of float32
        return torch.cpu._is_vnni_supported()
    return dtype == torch.float32


def can_take(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear` is to multiply these now: it has no gradient, and is for large weights.

    What does not fit together is left to F.linear, which says so.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    if x.device.type != "cpu" or weight.numel() < LARGE or not multiplies(x.dtype):
        return False
    return x.dtype == weight.dtype and x.shape[-1] == weight.shape[1]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: Gelu | None = None) -> Tensor:
    """Do what F.linear does, and then the GELU that is named; a packed weight is taken as well."""
    if bias is not None:
        bias = bias.contiguous()  # it is read as if it were
    then, approximate = ("none", "") if gelu is None else ("gelu", gelu)
    # by its overload: small products feel the choice among them
    multiply = torch.ops.mkldnn._linear_pointwise.default
    out: Tensor = multiply(x, weight, bias, then, [], approximate)
    return out
