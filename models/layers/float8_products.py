"""Products in float8: the rows of the input are rounded at each call, each with its own scale.

On NVIDIA GPUs from Hopper and Ada on at twice the speed of bfloat16, where the rounding is compiled
together with what comes before it. What torchao calls dynamic quantization per row.
"""

import torch
from torch import Tensor

from models.layers.float8_storage import Float8Matrix

MULTIPLE = 16  # of both sides of a matrix, as the kernels want it


def multiply(x: Tensor, matrix: Float8Matrix) -> Tensor:
    """Multiply [..., in] by the transpose of a matrix [rows, in]: [..., rows] in the dtype of x."""
    product = scaled_product(Float8Matrix.of(x.flatten(0, -2).contiguous()), matrix, x.dtype)
    unflattened: Tensor = product.unflatten(0, x.shape[:-1])
    return unflattened


def scaled_product(left: Float8Matrix, right: Float8Matrix, dtype: torch.dtype) -> Tensor:
    """Multiply [L, in] by the transpose of [rows, in]: [L, rows]."""
    product: Tensor = torch._scaled_mm(
        left.values,
        right.values.t(),  # the kernels take the second factor column by column
        left.scale,
        right.scale.t(),
        out_dtype=dtype,
        use_fast_accum=True,
    )
    return product
