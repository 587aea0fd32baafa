"""The autoencoder's weights on disk: diffusers' `vae/` or the original `ae.safetensors`.

The original (black-forest-labs/flux, src/flux/modules/autoencoder.py, commit 802fb47) has no
configuration: sizes are read off the shapes, and the constants are those of FLUX.1. Knows nothing
about latents.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from models.checkpoints import preset_files
from models.checkpoints.filling import Target, fill, on_meta_device
from models.checkpoints.float8 import Float8Files
from models.checkpoints.safetensors_files import SafetensorsFiles
from models.checkpoints.weights import Recipe, identity_recipes, ignore_none
from models.errors import PresetFileError
from models.flux.autoencoder import Autoencoder
from models.flux.formats.original_format import find_all_in_one
from models.flux.formats.stored_shapes import StoredShapes
from models.flux.part_configs import AutoencoderConfig

FOLDER = "vae"
WEIGHTS_STEM = "diffusion_pytorch_model"
ORIGINAL_FILE = "ae.safetensors"
ALL_IN_ONE_PREFIXES = ("vae.", "first_stage_model.")

NUM_NORM_GROUPS = 32
SCALING_FACTOR = 0.3611
SHIFT_FACTOR = 0.1159

# Our names, which are diffusers', to the original's, but for the levels of the decoder: those count
# from the image, ours from the latents.
_RENAMED = tuple(
    (re.compile(theirs), original)
    for theirs, original in (
        (r"^encoder\.down_blocks\.(\d+)\.", r"encoder.down.\1."),
        (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
        (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
        (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
        (r"\.resnets\.", ".block."),
        (r"\.downsamplers\.0\.", ".downsample."),
        (r"\.upsamplers\.0\.", ".upsample."),
        (r"\.conv_shortcut\.", ".nin_shortcut."),
        (r"\.conv_norm_out\.", ".norm_out."),
        (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
        (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
        (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
    )
)
_UP_BLOCK = re.compile(r"^decoder\.up_blocks\.(\d+)\.")


def load_autoencoder(directory: Path, device: str, dtype: torch.dtype | None) -> Autoencoder:
    """Load from `vae/`, from `ae.safetensors`, or out of an all-in-one file, in this order.

    `dtype` None keeps what the files hold.

    Raises PresetFileError for a missing or malformed file, WeightsError for weights that do not
    fit.
    """
    if (directory / FOLDER).is_dir() or preset_files.is_diffusers_directory(directory):
        return _load_folder(directory / FOLDER, device, dtype)
    if (directory / ORIGINAL_FILE).is_file():
        return load_original(directory / ORIGINAL_FILE, device, dtype)
    all_in_one = find_all_in_one(directory, ALL_IN_ONE_PREFIXES)
    if all_in_one is None:
        raise PresetFileError(f"{directory} has no autoencoder: neither vae/ nor {ORIGINAL_FILE}")
    return load_original(all_in_one, device, dtype)


def _load_folder(folder: Path, device: str, dtype: torch.dtype | None) -> Autoencoder:
    config = preset_files.read_model(folder, preset_files.CONFIG_FILE, AutoencoderConfig)
    with on_meta_device():
        autoencoder = Autoencoder(config)
    with SafetensorsFiles.in_directory(folder, WEIGHTS_STEM) as weights:
        fill(autoencoder, weights, identity_recipes(autoencoder), Target(device, dtype))
    return autoencoder.eval().requires_grad_(False)


def load_original(file: Path, device: str, dtype: torch.dtype | None) -> Autoencoder:
    """Load from a file in the original's names: `ae.safetensors`, or one that holds more parts.

    Raises PresetFileError for a missing or malformed file and one without an autoencoder,
    WeightsError for weights that do not fit.
    """
    with Float8Files([file]) as weights:
        stored = weights.shapes
        prefixes = (p for p in ALL_IN_ONE_PREFIXES if any(name.startswith(p) for name in stored))
        prefix = next(prefixes, "")
        config = _read_config(StoredShapes.below(prefix, file, "original autoencoder", stored))
        with on_meta_device():
            autoencoder = Autoencoder(config)
        is_ignored: Callable[[str], bool] = ignore_none
        if prefix:
            is_ignored = partial(_is_outside, prefix)
        recipes = _recipes(autoencoder, prefix, len(config.block_out_channels))
        target = Target(device, dtype or weights.pipeline_dtype)
        fill(autoencoder, weights, recipes, target, is_ignored)
    return autoencoder.eval().requires_grad_(False)


def _read_config(stored: StoredShapes) -> AutoencoderConfig:
    widths = tuple(
        stored.of(f"encoder.down.{level}.block.0.conv1.weight", 4)[0]
        for level in range(stored.count("encoder.down"))
    )
    if not widths or any(width % NUM_NORM_GROUPS for width in widths):
        raise PresetFileError(
            f"{stored.where} has an autoencoder of widths {list(widths)}; "
            f"multiples of {NUM_NORM_GROUPS} are allowed"
        )
    image_channels = stored.of("encoder.conv_in.weight", 4)[1]
    sizes = {
        "in_channels": image_channels,
        "out_channels": image_channels,
        "latent_channels": stored.of("decoder.conv_in.weight", 4)[1],
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": stored.count("encoder.down.0.block"),
        "norm_num_groups": NUM_NORM_GROUPS,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": SCALING_FACTOR,
        "shift_factor": SHIFT_FACTOR,
    }
    return preset_files.parse(sizes, AutoencoderConfig, stored.where)


def _recipes(autoencoder: nn.Module, prefix: str, num_levels: int) -> dict[str, Recipe]:
    recipes = {}
    for name in autoencoder.state_dict():
        original = original_name(name, num_levels)
        is_projection = ".attn_1." in original and ".norm." not in original
        names = (f"{prefix}{original}",)
        is_kernel = is_projection and name.endswith(".weight")
        recipes[name] = Recipe(names, _without_kernel) if is_kernel else Recipe(names)
    return recipes


def original_name(name: str, num_levels: int) -> str:
    """Give the original's name of one of our tensors."""
    name = _UP_BLOCK.sub(lambda match: f"decoder.up.{num_levels - 1 - int(match[1])}.", name)
    for theirs, original in _RENAMED:
        name = theirs.sub(original, name)
    return name


def _without_kernel(weight: Tensor) -> Tensor:
    """Turn a convolution of one pixel, [D, D, 1, 1], into the same linear layer's [D, D]."""
    return weight.flatten(1)


def _is_outside(prefix: str, name: str) -> bool:
    return not name.startswith(prefix)
