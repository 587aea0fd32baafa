"""The transformer's weights in diffusers' layout: which of their tensors make each of ours.

Names as in diffusers' FluxTransformer2DModel (0.42). Both ways, so that presets can be written.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Source:
    """The tensors to stack along the first axis; `is_swapped` exchanges the two halves."""

    names: tuple[str, ...]
    is_swapped: bool = False


_EMBEDDERS = {"time_in": "timestep_embedder", "guidance_in": "guidance_embedder", "vector_in": "text_embedder"}  # fmt: skip

# Our name (a regular expression over the whole name) to theirs; {0} is the block, {1} the ending.
_RULES: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    (r"img_in\.(weight|bias)", ("x_embedder.{0}",), False),
    (r"txt_in\.(weight|bias)", ("context_embedder.{0}",), False),
    (r"final_layer\.linear\.(weight|bias)", ("proj_out.{0}",), False),
    # swapped: diffusers stores scale first, the original shift first
    (r"final_layer\.adaLN_modulation\.1\.(weight|bias)", ("norm_out.linear.{0}",), True),
    *(
        (
            rf"{ours}\.{layer}_layer\.(weight|bias)",
            (f"time_text_embed.{theirs}.linear_{number}.{{0}}",),
            False,
        )
        for ours, theirs in _EMBEDDERS.items()
        for layer, number in (("in", 1), ("out", 2))
    ),
    *(
        (rf"double_blocks\.(\d+)\.{ours}", tuple(f"transformer_blocks.{{0}}.{t}" for t in theirs), False)  # fmt: skip
        for ours, theirs in (
            (r"img_mod\.lin\.(weight|bias)", ("norm1.linear.{1}",)),
            (r"txt_mod\.lin\.(weight|bias)", ("norm1_context.linear.{1}",)),
            (r"img_attn\.qkv\.(weight|bias)", ("attn.to_q.{1}", "attn.to_k.{1}", "attn.to_v.{1}")),
            (
                r"txt_attn\.qkv\.(weight|bias)",
                ("attn.add_q_proj.{1}", "attn.add_k_proj.{1}", "attn.add_v_proj.{1}"),
            ),
            (r"img_attn\.norm\.query_norm\.scale", ("attn.norm_q.weight",)),
            (r"img_attn\.norm\.key_norm\.scale", ("attn.norm_k.weight",)),
            (r"txt_attn\.norm\.query_norm\.scale", ("attn.norm_added_q.weight",)),
            (r"txt_attn\.norm\.key_norm\.scale", ("attn.norm_added_k.weight",)),
            (r"img_attn\.proj\.(weight|bias)", ("attn.to_out.0.{1}",)),
            (r"txt_attn\.proj\.(weight|bias)", ("attn.to_add_out.{1}",)),
            (r"img_mlp\.0\.(weight|bias)", ("ff.net.0.proj.{1}",)),
            (r"img_mlp\.2\.(weight|bias)", ("ff.net.2.{1}",)),
            (r"txt_mlp\.0\.(weight|bias)", ("ff_context.net.0.proj.{1}",)),
            (r"txt_mlp\.2\.(weight|bias)", ("ff_context.net.2.{1}",)),
        )
    ),
    *(
        (rf"single_blocks\.(\d+)\.{ours}", tuple(f"single_transformer_blocks.{{0}}.{t}" for t in theirs), False)  # fmt: skip
        for ours, theirs in (
            (r"modulation\.lin\.(weight|bias)", ("norm.linear.{1}",)),
            (
                r"linear1\.(weight|bias)",
                ("attn.to_q.{1}", "attn.to_k.{1}", "attn.to_v.{1}", "proj_mlp.{1}"),
            ),
            (r"linear2\.(weight|bias)", ("proj_out.{1}",)),
            (r"norm\.query_norm\.scale", ("attn.norm_q.weight",)),
            (r"norm\.key_norm\.scale", ("attn.norm_k.weight",)),
        )
    ),
)
_COMPILED = tuple((re.compile(ours), theirs, swapped) for ours, theirs, swapped in _RULES)


def source(name: str) -> Source:
    """Tell which diffusers tensors make the backbone's tensor `name`."""
    for pattern, theirs, is_swapped in _COMPILED:
        if match := pattern.fullmatch(name):
            return Source(tuple(t.format(*match.groups()) for t in theirs), is_swapped)
    raise WeightsError(f"diffusers has no tensor for {name!r}; this is a bug")


def from_diffusers(names: Iterable[str], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Build our state dict from theirs.

    Raises WeightsError that names every tensor that is missing and every one that is left over.
    """
    sources = {name: source(name) for name in names}
    wanted = [part for each in sources.values() for part in each.names]
    missing = sorted(set(wanted) - set(theirs))
    left_over = sorted(set(theirs) - set(wanted))
    if missing or left_over:
        raise WeightsError(f"transformer weights: missing {missing}, left over {left_over}")
    return {name: _join(each, theirs) for name, each in sources.items()}


def _join(each: Source, theirs: Mapping[str, Tensor]) -> Tensor:
    parts = [theirs[name] for name in each.names]
    if each.is_swapped:
        parts = list(reversed(parts[0].chunk(2)))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def to_diffusers(ours: Mapping[str, Tensor], hidden_size: int) -> dict[str, Tensor]:
    """Build their state dict from ours; stacked projections are `hidden_size` rows each."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        each = source(name)
        if each.is_swapped:
            tensor = torch.cat(list(reversed(tensor.chunk(2))))
        sizes = [hidden_size] * (len(each.names) - 1)
        parts = tensor.split((*sizes, len(tensor) - sum(sizes)))
        theirs.update({n: part.contiguous() for n, part in zip(each.names, parts, strict=True)})
    return theirs
