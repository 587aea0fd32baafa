"""Norms with gamma and beta, taken over by the modulation that follows them.

(1 + scale) · (gamma · x + beta) + shift is (1 + scale') · x + shift' with
scale' = gamma · (1 + scale) - 1 and shift' = shift + (1 + scale) · beta; and since scale and shift
are rows of one linear layer's output, the layer itself can say scale' and shift'. Knows nothing
about files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.layers.adapters import Linear


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """What the outputs of a modulation took over, per branch [branches, D], float32.

    The outputs are, branch by branch, D shifts, D scales and what is not touched (D gates or
    nothing). `to_ours` and `to_keras` take what is linear in them, with the outputs as first axis:
    a weight, or a change of it. A gamma of 0 makes every scale the same; back comes a scale of 0.
    """

    gamma: Tensor
    beta: Tensor

    @classmethod
    def of(cls, affines: Sequence[Tensor]) -> Fold:
        """Take gamma and beta of the first branch, of the second, and so on."""
        gamma, beta = (torch.stack(list(affines[first::2])).float() for first in (0, 1))
        return cls(gamma, beta)

    @property
    def is_trivial(self) -> bool:
        return bool((self.gamma == 1).all()) and not bool(self.beta.any())

    def to_ours(self, rows: Tensor) -> Tensor:
        gamma, beta = self._beside(rows)
        shift, scale, *gate = self._parts(rows)
        return _joined(shift + beta * scale, gamma * scale, *gate)

    def to_keras(self, rows: Tensor) -> Tensor:
        gamma, beta = self._beside(rows)
        shift, folded, *gate = self._parts(rows)
        scale = torch.where(gamma == 0, 0, folded / gamma)
        return _joined(shift - beta * scale, scale, *gate)

    def bias_to_ours(self, bias: Tensor) -> Tensor:
        return self.to_ours(bias) + self._constant(bias)

    def bias_to_keras(self, bias: Tensor) -> Tensor:
        return self.to_keras(bias - self._constant(bias))

    def _parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        branches, width = self.gamma.shape
        parts: tuple[Tensor, ...] = rows.unflatten(0, (branches, -1, width)).unbind(1)
        return parts

    def _beside(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        shape = (*self.gamma.shape, *(1 for _ in rows.shape[1:]))
        gamma, beta = (each.to(rows.device).reshape(shape) for each in (self.gamma, self.beta))
        return gamma, beta

    def _constant(self, bias: Tensor) -> Tensor:
        """Say what the bias changes by where it is 0."""
        gamma, beta = self._beside(bias)
        gates = (torch.zeros_like(beta) for _ in self._parts(bias)[2:])
        return _joined(beta, gamma - 1, *gates)


def _joined(*parts: Tensor) -> Tensor:
    return torch.stack(parts, 1).flatten(0, 2)


class FoldingLinear(Linear):
    """A linear layer that says shifts and scales, and remembers the norms that it took over."""

    fold: Fold | None = None
