"""How many bytes the parts of a Flux pipeline take, known before any weight is read.

The parts are loaded onto the meta device, by the code that loads them. Knows nothing about devices,
nor what is to be done where the parts do not fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from models.checkpoints.float8 import Float8Files
from models.flux.autoencoder import Autoencoder
from models.flux.backbone import FluxBackbone
from models.flux.clip import ClipTextEncoder
from models.flux.formats.autoencoder_files import load_autoencoder
from models.flux.formats.encoder_files import load_clip, load_t5
from models.flux.parts import load_backbone
from models.flux.placement import FluxSizes, Placement
from models.flux.t5 import T5Encoder
from models.presets import formats
from models.presets.flux_variants import require_text_to_image

META = "meta"
NO_TOKEN = 0  # CLIP's end of text: without effect on its sizes


@dataclass(frozen=True, slots=True)
class FluxParts:
    """The modules of a pipeline, on any device, and the transformer once more in float8."""

    backbone: FluxBackbone
    float8_backbone: FluxBackbone
    clip: ClipTextEncoder
    t5: T5Encoder
    autoencoder: Autoencoder


def read_sizes(path: Path, dtype: torch.dtype | None = None) -> FluxSizes:
    """Read the sizes of a pipeline's directory; `dtype` is that of `TextToImage.from_preset`.

    Raises PresetFileError for a missing or malformed file, WeightsError for weights that do not
    fit, PresetError for a Flux model of another task.
    """
    require_text_to_image(path)
    parts = FluxParts(
        backbone=load_backbone(path, META, dtype),
        float8_backbone=load_backbone(path, META, dtype, Placement(float8=True)),
        clip=load_clip(path, NO_TOKEN, META, dtype),
        t5=load_t5(path, META, dtype),
        autoencoder=load_autoencoder(path, META, dtype),
    )
    return measure(parts, is_float8=_stores_float8(path))


def measure(parts: FluxParts, is_float8: bool) -> FluxSizes:
    """Count the bytes of modules."""
    backbone, t5 = parts.backbone, parts.t5
    block_bytes = tuple(map(_num_bytes, backbone.blocks))
    t5_block_bytes = tuple(map(_num_bytes, t5.blocks))
    modules = (backbone, parts.clip, t5, parts.autoencoder)
    return FluxSizes(
        block_bytes=block_bytes,
        float8_block_bytes=tuple(map(_num_bytes, parts.float8_backbone.blocks)),
        other_transformer_bytes=_num_bytes(backbone) - sum(block_bytes),
        clip_bytes=_num_bytes(parts.clip),
        t5_block_bytes=t5_block_bytes,
        other_t5_bytes=_num_bytes(t5) - sum(t5_block_bytes),
        autoencoder_bytes=_num_bytes(parts.autoencoder),
        hidden_size=backbone.hidden_size,
        num_heads=backbone.num_heads,
        mlp_ratio=backbone.mlp_ratio,
        autoencoder_widths=parts.autoencoder.config.block_out_channels,
        is_float8=is_float8,
        num_parameters=sum(each.numel() for module in modules for each in module.parameters()),
    )


def _num_bytes(module: nn.Module) -> int:
    """Count parameters and buffers: the scales of float8 matrices are buffers."""
    return _sum_bytes(module.parameters()) + _sum_bytes(module.buffers())


def _sum_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _stores_float8(path: Path) -> bool:
    with formats.read_stored(path).open_weights() as weights:
        return isinstance(weights, Float8Files) and weights.pipeline_dtype is not None
