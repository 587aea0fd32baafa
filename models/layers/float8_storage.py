"""Matrices kept in float8, half of bfloat16's memory, and turned back where they are multiplied.

Nothing is computed in float8: products run in the dtype of their input. Each row has a scale of its
own, so that its largest value is the largest of float8_e4m3fn, 448. Knows nothing about files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

E4M3 = torch.float8_e4m3fn
FLOAT8 = (E4M3, torch.float8_e5m2)


@dataclass(frozen=True, slots=True, eq=False)
class Float8Matrix:
    """A matrix as float8 values [rows, in], and what each row is multiplied by.

    scale [rows, 1] float32
    """

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Float8Matrix:
        """Round a matrix [rows, in] to float8_e4m3fn."""
        smallest, largest = torch.aminmax(matrix, dim=1, keepdim=True)
        peak = torch.maximum(-smallest, largest).float()
        scale = torch.where(peak > 0, peak / torch.finfo(E4M3).max, 1.0)
        return cls((matrix / scale).to(E4M3), scale)

    @classmethod
    def joined(cls, parts: list[Float8Matrix]) -> Float8Matrix:
        """Put matrices of one float8 dtype one below the other."""
        values = torch.cat([part.values.view(torch.uint8) for part in parts])
        return cls(values.view(parts[0].values.dtype), torch.cat([part.scale for part in parts]))

    def to_dtype(self, dtype: torch.dtype) -> Tensor:
        """Give the matrix that is stood for, [rows, in]: multiplied in float32, rounded once."""
        return self.values.to(dtype).mul_(self.scale)

    def to(self, device: str | torch.device) -> Float8Matrix:
        return Float8Matrix(self.values.to(device), self.scale.to(device))
