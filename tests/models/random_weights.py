"""Non-trivial values for every weight: at their initial ones, norms and biases hide mistakes."""

import torch
from torch import nn

WIDE_SPREAD = 0.02  # of published models, whose layers sum hundreds of inputs


def randomise(module: nn.Module, seed: int = 0, spread: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
