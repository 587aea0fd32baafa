"""Products in int8, on CPUs with VNNI: the rows of the input are rounded at each call.

Each row has its own scale, so that its result does not depend on its neighbours in a batch; the
weight has one per output. What torchao calls dynamic quantization per row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# just below the least that GELU gives: -0.16997, by its approximation -0.17004
LEAST_GELU = -0.1701
_LARGEST = 127
_ZERO = 128  # VNNI's kernels take the input as uint8: this much is added to a signed integer
_TINY = 1e-30  # in place of the scale of a row of zeros

# by its overload, as in `onednn`
_multiply = torch.ops.onednn.qlinear_pointwise.default


@dataclass(frozen=True, slots=True, eq=False)
class Int8Rows:
    """An input [..., in], rounded: scale · (values - zero) + least is nearly the input.

    values  [L, in] uint8
    scale   [L, 1] float32
    """

    values: Tensor
    scale: Tensor
    zero: int = _ZERO
    least: float = 0.0

    @classmethod
    def of(cls, x: Tensor) -> Int8Rows:
        rows = x.reshape(-1, x.shape[-1]).float()
        scale = (rows.abs().amax(dim=-1, keepdim=True) / _LARGEST).clamp_min(_TINY)
        return cls(_as_uint8(rows * scale.reciprocal()), scale)

    @classmethod
    def of_gelu(cls, x: Tensor) -> Int8Rows:
        """Round what a GELU gave, twice as finely: it has hardly anything below zero."""
        rows = x.reshape(-1, x.shape[-1]).float()
        scale = (rows.amax(dim=-1, keepdim=True) - LEAST_GELU) / (_LARGEST + _ZERO)
        signed = (rows - (LEAST_GELU + _ZERO * scale)).mul_(scale.reciprocal())
        return cls(_as_uint8(signed), scale, zero=0, least=LEAST_GELU)


@dataclass(frozen=True, slots=True, eq=False)
class Int8Matrix:
    """A weight [out, in], rounded.

    values  [in, out] int8  laid out as oneDNN reads it
    scale   [out] float32   what 1 stands for, by output
    sums    [out] float32   of what each output's values stand for
    """

    values: Tensor
    scale: Tensor
    sums: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Int8Matrix:
        scale = (weight.float().abs().amax(dim=1) / _LARGEST).clamp_min(_TINY)
        values = (weight.float() / scale[:, None]).round().contiguous()  # it is read as if it were
        packed = torch.ops.onednn.qlinear_prepack(values.to(torch.int8), None)
        return cls(packed, scale, values.sum(dim=1) * scale)

    def to_float32(self) -> Tensor:
        """Give the weight that the values stand for."""
        restored: Tensor = self.values.to_dense().t().contiguous() * self.scale[:, None]
        return restored

    def multiply(self, rows: Int8Rows, bias: Tensor | None) -> Tensor:
        """Do what F.linear does with the input that was rounded: [L, out] float32."""
        product = self.multiply_values(rows.values, rows.zero)
        addend = torch.zeros_like(self.sums) if bias is None else bias
        if rows.least:
            addend = addend + rows.least * self.sums
        return torch.addcmul(addend, product, rows.scale, out=product)

    def multiply_values(self, values: Tensor, zero: int) -> Tensor:
        """Multiply [L, in] uint8, less `zero`, by what this matrix stands for: [L, out] float32."""
        no_zeros = torch.zeros(1, dtype=torch.long)  # the weight's own are 0
        product: Tensor = _multiply(
            values, 1.0, zero, self.values, self.scale, no_zeros,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product


def _as_uint8(signed: Tensor) -> Tensor:
    """Round values from -128 to 127 in place and add 128, by what torch does fast."""
    return signed.round_().to(torch.int8).bitwise_xor_(-_ZERO).view(torch.uint8)
