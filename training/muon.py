"""Muon for the matrices inside a transformer: a step whose singular values are all about equal.

`torch.optim.Muon` does the same in bfloat16 alone, which processors without such instructions
compute hundreds of times slower than float32.
Sources: K. Jordan, "Muon" (2024); the scale that lets AdamW's learning rates and weight decay
stand is Moonlight's (arXiv 2502.16982).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from training.acceleration import native_autocast

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5
ADAM_RMS = 0.2  # the usual root mean square of AdamW's steps


class Muon(torch.optim.Optimizer):
    """For parameters [M, N] alone."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(
            list(parameters), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        )

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(state["momentum"], group["momentum"])  # Nesterov
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                scale = ADAM_RMS * max(parameter.shape) ** 0.5
                parameter.add_(orthogonalised(ahead), alpha=-group["lr"] * scale)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Move the singular values of [M, N] near 1, by a fixed number of Newton-Schulz iterations."""
    a, b, c = NEWTON_SCHULZ
    is_wide = matrix.shape[0] <= matrix.shape[1]
    wide: Tensor = matrix if is_wide else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    with native_autocast():  # what it computes need not be exact
        for _ in range(NUM_ITERATIONS):
            gram = wide @ wide.T
            update = b * gram + c * gram @ gram
            wide = a * wide + update @ wide
    return wide if is_wide else wide.T
