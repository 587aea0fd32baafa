"""Transformer and schedule of a Flux preset, in the layout of diffusers or of the original.

`autoencoder.py` and `text_encoders.py` load the other parts. Where a directory holds both layouts,
as the official repositories do, diffusers' wins.
"""

from dataclasses import fields
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from models.checkpoints import preset_files
from models.checkpoints.filling import Target, fill, on_meta_device
from models.checkpoints.float8 import Float8Files
from models.errors import PresetError, PresetFileError
from models.flux.backbone import FluxBackbone
from models.flux.placement import RESIDENT, Placement
from models.flux.sampling import Schedule
from models.layers.adapters import Linear
from models.layers.streaming import names_within
from models.presets import formats

SCHEDULER_CONFIG_FILE = "scheduler/scheduler_config.json"


class _SchedulerConfig(BaseModel):
    """`scheduler/scheduler_config.json`; what `Schedule` does not compute must be off."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    class_name: Literal["FlowMatchEulerDiscreteScheduler"] = Field(
        "FlowMatchEulerDiscreteScheduler", alias="_class_name"
    )
    num_train_timesteps: Literal[1000] = 1000
    use_dynamic_shifting: bool = False
    shift: float = 1.0
    base_shift: float | None = 0.5
    max_shift: float | None = 1.15
    base_image_seq_len: int | None = 256
    max_image_seq_len: int | None = 4096
    time_shift_type: Literal["exponential"] = "exponential"
    shift_terminal: None = None
    invert_sigmas: Literal[False] = False
    stochastic_sampling: Literal[False] = False
    use_karras_sigmas: Literal[False] | None = False
    use_exponential_sigmas: Literal[False] | None = False
    use_beta_sigmas: Literal[False] | None = False


def load_backbone(
    path: Path, device: str, dtype: torch.dtype | None, placement: Placement = RESIDENT
) -> FluxBackbone:
    """Load the transformer of a directory, or of one original file, frozen.

    `dtype` None keeps what the files hold, and means bfloat16 where that is float8. Blocks that
    shall be streamed are left in host memory.

    Raises PresetFileError for a missing or malformed file and for sizes that do not go together,
    WeightsError for weights that do not fit, PresetError for another class and for a placement of
    more blocks than there are.
    """
    stored = formats.read_stored(path)
    if stored.class_name != FluxBackbone.__name__:
        raise PresetError(f"{path} holds a {stored.class_name}, not a FluxBackbone")
    try:
        with on_meta_device():
            backbone = FluxBackbone.from_config(stored.config)
    except (TypeError, ValueError) as error:
        raise PresetFileError(f"{path} does not fit FluxBackbone: {error}") from error
    host_names = names_within(backbone, streamed_blocks(backbone, placement))
    with stored.open_weights() as weights:
        if dtype is None and isinstance(weights, Float8Files):
            dtype = weights.pipeline_dtype
        float8_names = matrix_names(backbone) if placement.float8 else frozenset()
        target = Target(device, dtype, host_names, float8_names)
        fill(backbone, weights, stored.recipes(backbone), target, stored.is_ignored)
    return backbone.eval().requires_grad_(False)


def streamed_blocks(backbone: FluxBackbone, placement: Placement) -> list[nn.Module]:
    """Give the blocks that a placement streams.

    Raises PresetError for more blocks than there are.
    """
    blocks, wanted = backbone.blocks, placement.num_streamed_blocks
    if wanted > len(blocks):
        raise PresetError(
            f"num_streamed_blocks is {wanted}, but this transformer has {len(blocks)} blocks"
        )
    return blocks[len(blocks) - wanted :]


def matrix_names(backbone: FluxBackbone) -> frozenset[str]:
    """Name the weights of the blocks' linear layers."""
    names = {layer: name for name, layer in backbone.named_modules() if isinstance(layer, Linear)}
    return frozenset(
        f"{names[layer]}.weight"
        for block in backbone.blocks
        for layer in block.modules()
        if isinstance(layer, Linear)
    )


def load_schedule(directory: Path, has_guidance: bool) -> Schedule:
    """Read diffusers' configuration; without one, the original's schedule.

    The original shifts for its guided models alone, dynamically (src/flux/sampling.py and cli.py,
    commit 802fb47).

    Raises PresetFileError for a malformed file.
    """
    is_diffusers = preset_files.is_diffusers_directory(directory)
    if not is_diffusers and not (directory / SCHEDULER_CONFIG_FILE).is_file():
        return Schedule(use_dynamic_shifting=has_guidance)
    config = preset_files.read_model(directory, SCHEDULER_CONFIG_FILE, _SchedulerConfig)
    computed = {field.name for field in fields(Schedule)}
    return Schedule(**config.model_dump(include=computed, exclude_none=True))
