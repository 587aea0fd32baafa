"""Earlier weights for a deeper network."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

BLOCK = re.compile(r"(?:.*\.)?(?:single_blocks|block|layers)\.\d+\.")


@torch.no_grad()
def warm_start(module: nn.Module, weights: Mapping[str, Tensor], gates: Sequence[str]) -> None:
    """Load earlier weights; blocks that they lack begin without effect.

    `gates` are the ends of the names of layers that scale, or give, what a block adds: they become
    zero. Raises ValueError where anything but whole blocks is missing, or something is left over.
    """
    loaded = module.load_state_dict(weights, strict=False)
    known = {found.group() for name in weights if (found := BLOCK.match(name))}
    odd = [
        name
        for name in loaded.missing_keys
        if (found := BLOCK.match(name)) is None or found.group() in known
    ]
    if odd or loaded.unexpected_keys:
        raise ValueError(f"missing: {odd}; left over: {loaded.unexpected_keys}")
    for name in loaded.missing_keys:
        if name.removesuffix(".weight").removesuffix(".bias").endswith(tuple(gates)):
            nn.init.zeros_(module.get_parameter(name))
