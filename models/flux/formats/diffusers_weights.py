"""The transformer's weights in diffusers' layout: which of their tensors make each of ours.

Names as in diffusers' FluxTransformer2DModel (0.42). Both ways, so that presets can be written.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.checkpoints.weights import Recipe

# Modules, ours to theirs; several of theirs are stacked along the first axis.
_OUTER: dict[str, tuple[str, ...]] = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
}
_DOUBLE_BLOCK: dict[str, tuple[str, ...]] = {
    "img_mod.lin": ("norm1.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_SINGLE_BLOCK: dict[str, tuple[str, ...]] = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}
_BLOCKS = {
    "double_blocks": ("transformer_blocks", _DOUBLE_BLOCK),
    "single_blocks": ("single_transformer_blocks", _SINGLE_BLOCK),
}
_IN_BLOCK = re.compile(r"(double_blocks|single_blocks)\.(\d+)\.(.+)")
_SWAPPED = "final_layer.adaLN_modulation.1"  # diffusers stores scale first, the original shift


@dataclass(frozen=True, slots=True)
class Source:
    """The tensors to stack along the first axis; `is_swapped` exchanges the two halves."""

    names: tuple[str, ...]
    is_swapped: bool


def source(name: str) -> Source:
    """Tell which diffusers tensors make the backbone's tensor `name`."""
    module, _, ending = name.rpartition(".")
    ending = "weight" if ending == "scale" else ending
    if match := _IN_BLOCK.fullmatch(module):
        kind, index, inner = match.groups()
        blocks, modules = _BLOCKS[kind]
        names = tuple(f"{blocks}.{index}.{theirs}.{ending}" for theirs in modules[inner])
    else:
        names = tuple(f"{theirs}.{ending}" for theirs in _OUTER[module])
    return Source(names, is_swapped=module == _SWAPPED)


def recipes(backbone: nn.Module) -> dict[str, Recipe]:
    """Tell how each of the backbone's tensors is made of theirs."""
    return {name: _recipe(source(name)) for name in backbone.state_dict()}


def _recipe(each: Source) -> Recipe:
    if each.is_swapped:
        return Recipe(each.names, _swap_halves)
    return Recipe(each.names)


def to_diffusers(ours: Mapping[str, Tensor], hidden_size: int) -> dict[str, Tensor]:
    """Build their state dict from ours; stacked projections are `hidden_size` rows each."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        each = source(name)
        joined = _swap_halves(tensor) if each.is_swapped else tensor
        sizes = [hidden_size] * (len(each.names) - 1)
        parts = joined.split((*sizes, len(joined) - sum(sizes)))
        theirs.update({n: part.contiguous() for n, part in zip(each.names, parts, strict=True)})
    return theirs


def _swap_halves(tensor: Tensor) -> Tensor:
    """Exchange the halves; on the meta device there is nothing to exchange but the shape."""
    return tensor if tensor.is_meta else torch.cat(list(reversed(tensor.chunk(2))))
