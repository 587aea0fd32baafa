"""Random LoRA files for the tiny transformer, in the styles of the programs that write them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Style:
    """The forms of keys, with {} for the module."""

    a: str
    b: str
    alpha: str | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """What decides about an adapter."""

    rank: int
    out_features: int
    in_features: int


PEFT = Style("transformer.{}.lora_A.weight", "transformer.{}.lora_B.weight")
KOHYA = Style("{}.lora_down.weight", "{}.lora_up.weight", "{}.alpha")


def linear_sizes(module: nn.Module) -> dict[str, Sizes]:
    """Give every linear layer an adapter's sizes, the rank now 2, now 3, now 4."""
    layers = {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)}
    return {
        name: Sizes(2 + index % 3, layer.out_features, layer.in_features)
        for index, (name, layer) in enumerate(layers.items())
    }


def random_adapters(sizes: Mapping[str, Sizes], style: Style, seed: int = 0) -> Tensors:
    """Draw A, B and alpha for every module, large enough to change the output visibly."""
    generator = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    for name, size in sizes.items():
        a = torch.randn(size.rank, size.in_features, generator=generator)
        b = torch.randn(size.out_features, size.rank, generator=generator)
        tensors[style.a.format(name)] = 0.3 * a
        tensors[style.b.format(name)] = 0.3 * b
        if style.alpha is not None:
            tensors[style.alpha.format(name)] = 0.5 + 4 * torch.rand((), generator=generator)
    return tensors


def with_underscores(tensors: Tensors, prefix: str) -> Tensors:
    """Write as kohya does: a prefix, and underscores in the module's name."""
    endings = tuple(form.removeprefix("{}") for form in (KOHYA.a, KOHYA.b, KOHYA.alpha or ""))
    renamed = {}
    for key, tensor in tensors.items():
        ending = next(each for each in endings if key.endswith(each))
        renamed[prefix + key.removesuffix(ending).replace(".", "_") + ending] = tensor
    return renamed
