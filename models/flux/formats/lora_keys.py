"""Where the entries of a Flux LoRA file belong.

A key is a prefix, a module and what of its adapter it is. Programs differ in the prefix, in writing
the module with dots or underscores, and in naming it as black-forest-labs does (as we do) or as
diffusers does, where several modules are slices of one of ours. Sources: PEFT 0.21, kohya-ss
sd-scripts (networks/convert_flux_lora.py), diffusers 0.42 (loaders/lora_conversion_utils.py). Knows
nothing about the values.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from torch import nn

from models.flux.backbone import FluxBackbone
from models.flux.formats.diffusers_weights import source
from models.layers.adapters import Linear

TRANSFORMER_PREFIXES = (
    "base_model.model.",
    "diffusion_model.",
    "lora_transformer_",
    "lora_unet_",
    "transformer.",
)
CLIP_PREFIXES = ("lora_te1_", "lora_te_", "text_encoder.", "text_encoders.clip_l.transformer.")


class Part(StrEnum):
    """What of an adapter an entry is."""

    A = "A"
    B = "B"
    ALPHA = "alpha"


_ENDINGS = {
    Part.A: r"lora_A(?:\.\w+)?\.weight|lora_down\.weight|lora\.down\.weight",
    Part.B: r"lora_B(?:\.\w+)?\.weight|lora_up\.weight|lora\.up\.weight",
    Part.ALPHA: r"alpha",
}


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart; `module` has no prefix."""

    module: str
    part: Part
    is_clip: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """The outputs of one of our layers that a module of a file is."""

    module: str
    layer: Linear
    first: int
    count: int
    is_swapped: bool = False  # the halves come in the other order


def read_key(key: str) -> Key | None:
    """Take a key apart; None for what is no part of a low-rank adapter."""
    for part, ending in _ENDINGS.items():
        if match := re.fullmatch(rf"(.+)\.(?:{ending})", key):
            module = match[1]
            is_clip = module.startswith(CLIP_PREFIXES)
            prefixes = CLIP_PREFIXES if is_clip else TRANSFORMER_PREFIXES
            return Key(_without_prefixes(module, prefixes), part, is_clip)
    return None


def _without_prefixes(module: str, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        if module.startswith(prefix):
            return _without_prefixes(module.removeprefix(prefix), prefixes)
    return module


def transformer_rows(backbone: FluxBackbone) -> dict[str, Rows]:
    """Give the rows of every module by its names without dots, ours and diffusers'."""
    found = {}
    for name, layer in backbone.named_modules():
        if isinstance(layer, Linear):
            found[without_dots(name)] = Rows(name, layer, 0, layer.out_features)
            found |= _diffusers_rows(name, layer, backbone.hidden_size)
    return found


def _diffusers_rows(name: str, layer: Linear, hidden_size: int) -> dict[str, Rows]:
    stacked = source(f"{name}.weight")
    found: dict[str, Rows] = {}
    first = 0
    for index, theirs in enumerate(stacked.names):
        is_last = index == len(stacked.names) - 1
        count = layer.out_features - first if is_last else hidden_size
        rows = Rows(name, layer, first, count, stacked.is_swapped)
        found[without_dots(theirs.removesuffix(".weight"))] = rows
        first += count
    return found


def clip_rows(clip: nn.Module) -> dict[str, Rows]:
    """Give the linear layers of a text encoder by their names without dots."""
    found: dict[str, Rows] = {}
    for name, layer in clip.named_modules():
        if isinstance(layer, Linear):
            rows = Rows(name, layer, 0, layer.out_features)
            bare = without_dots(name)
            found |= {bare: rows, f"text_model_{bare}": rows}  # transformers 5 has left it out
    return found


def without_dots(module: str) -> str:
    return module.replace(".", "_")
