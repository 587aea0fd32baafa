"""CLIP's and T5's weights on disk, to our modules.

Either a folder as transformers writes it, or single files as ComfyUI uses them, under the same
names and without configuration: `clip_l.safetensors`, `t5xxl_fp16.safetensors`,
`t5xxl_fp8_e4m3fn.safetensors`; or both inside an all-in-one file. Weights go to their device once,
tensor by tensor. Knows nothing about tokenizers.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from models.checkpoints import preset_files
from models.checkpoints.filling import Target, fill, on_meta_device
from models.checkpoints.float8 import Float8Files
from models.checkpoints.weights import Recipe
from models.errors import PresetFileError
from models.flux.clip import ClipTextEncoder
from models.flux.formats.original_format import find_all_in_one
from models.flux.formats.stored_shapes import StoredShapes
from models.flux.part_configs import ClipConfig, T5Config
from models.flux.t5 import T5Encoder, T5GatedMLP
from models.layers.streaming import names_within

CLIP_FOLDER, T5_FOLDER = "text_encoder", "text_encoder_2"
CLIP_FILES, T5_FILES = "clip_l*.safetensors", "t5xxl*.safetensors"
CLIP_PREFIX, T5_PREFIX = (
    "text_encoders.clip_l.transformer.",
    "text_encoders.t5xxl.transformer.",
)
WEIGHTS_STEM = "model"

CLIP_HEAD_WIDTH = 64  # of all of OpenAI's text encoders
INNER_CLIP = "text_model."  # the files have it, our modules have not
# CLIP's projection and temperature; positions that older versions of transformers stored
_POSITIONS = "embeddings.position_ids"
CLIP_IGNORED = ("text_projection.weight", "logit_scale", _POSITIONS, f"{INNER_CLIP}{_POSITIONS}")
T5_SHARED, T5_TIED = "shared.weight", "encoder.embed_tokens.weight"  # one tensor, two names
T5_IGNORED = (T5_TIED,)


@dataclass(frozen=True, slots=True)
class _Found:
    """Where one encoder's weights lie; a folder has a configuration too."""

    folder: Path | None
    open_weights: Callable[[], Float8Files]
    prefix: str = ""


def load_clip(
    directory: Path, eos_token_id: int, device: str, dtype: torch.dtype | None
) -> ClipTextEncoder:
    """Load CLIP's text encoder; `dtype` None keeps what the files hold.

    `eos_token_id` says where the pooled output lies, where no configuration does.

    Raises PresetFileError for a missing or malformed file, WeightsError for weights that do not
    fit.
    """
    found = _find(directory, CLIP_FOLDER, CLIP_FILES, CLIP_PREFIX)
    with found.open_weights() as weights:
        stored = StoredShapes.below(found.prefix, weights.where, "CLIP encoder", weights.shapes)
        if found.folder is None:
            config = _clip_config(stored, eos_token_id)
        else:
            config = preset_files.read_model(found.folder, preset_files.CONFIG_FILE, ClipConfig)
        with on_meta_device():
            clip = ClipTextEncoder(config)
        names = {name: _stored_clip_name(name, stored) for name in clip.state_dict()}
        _fill(clip, weights, found.prefix, names, CLIP_IGNORED, Target(device, dtype))
    return clip.eval().requires_grad_(False)


def load_t5(
    directory: Path, device: str, dtype: torch.dtype | None, leaves_blocks_on_host: bool = False
) -> T5Encoder:
    """Load T5's encoder; `dtype` None keeps what the files hold.

    `leaves_blocks_on_host` is for blocks that shall be streamed.

    Raises PresetFileError for a missing or malformed file, WeightsError for weights that do not
    fit.
    """
    found = _find(directory, T5_FOLDER, T5_FILES, T5_PREFIX)
    with found.open_weights() as weights:
        stored = StoredShapes.below(found.prefix, weights.where, "T5 encoder", weights.shapes)
        if found.folder is None:
            config = _t5_config(stored)
        else:
            config = preset_files.read_model(found.folder, preset_files.CONFIG_FILE, T5Config)
        with on_meta_device():
            t5 = T5Encoder(config)
        names = {name: name for name in t5.state_dict()}
        if T5_SHARED not in stored.shapes and T5_TIED in stored.shapes:
            names[T5_SHARED] = T5_TIED
        on_host = names_within(t5, t5.blocks) if leaves_blocks_on_host else frozenset()
        _fill(t5, weights, found.prefix, names, T5_IGNORED, Target(device, dtype, on_host))
    _widen_overflowing(t5)
    return t5.eval().requires_grad_(False)


def _find(directory: Path, folder: str, files: str, prefix: str) -> _Found:
    """Look for a folder, then for a file of its own, then into an all-in-one file."""
    inner = directory / folder
    if inner.is_dir():
        return _Found(inner, lambda: Float8Files.in_directory(inner, WEIGHTS_STEM))
    found = sorted(directory.glob(files))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise PresetFileError(f"{directory} should hold one file {files}; it holds {names}")
    if found:
        return _Found(None, lambda: Float8Files(found))
    all_in_one = find_all_in_one(directory, (prefix,))
    if all_in_one is None:
        raise PresetFileError(f"{inner} is missing, and so is a file {files} in its place")
    return _Found(None, lambda: Float8Files([all_in_one]), prefix)


def _clip_config(stored: StoredShapes, eos_token_id: int) -> ClipConfig:
    vocabulary_size, width = stored.of(f"{INNER_CLIP}embeddings.token_embedding.weight", 2)
    if width % CLIP_HEAD_WIDTH:
        raise PresetFileError(
            f"{stored.where} holds a CLIP encoder of width {width}; "
            f"without a configuration, multiples of {CLIP_HEAD_WIDTH} are allowed"
        )
    num_positions, _ = stored.of(f"{INNER_CLIP}embeddings.position_embedding.weight", 2)
    layers = f"{INNER_CLIP}encoder.layers"
    sizes = {
        "vocab_size": vocabulary_size,
        "hidden_size": width,
        "intermediate_size": stored.of(f"{layers}.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": stored.count(layers),
        "num_attention_heads": width // CLIP_HEAD_WIDTH,
        "max_position_embeddings": num_positions,
        "hidden_act": "quick_gelu",
        "eos_token_id": eos_token_id,
    }
    return preset_files.parse(sizes, ClipConfig, stored.where)


def _t5_config(stored: StoredShapes) -> T5Config:
    first = "encoder.block.0.layer"
    embedding = T5_SHARED if T5_SHARED in stored.shapes else T5_TIED
    vocabulary_size, width = stored.of(embedding, 2)
    num_buckets, num_heads = stored.of(f"{first}.0.SelfAttention.relative_attention_bias.weight", 2)
    sizes = {
        "vocab_size": vocabulary_size,
        "d_model": width,
        "d_kv": stored.of(f"{first}.0.SelfAttention.q.weight", 2)[0] // num_heads,
        "d_ff": stored.of(f"{first}.1.DenseReluDense.wi_0.weight", 2)[0],
        "num_layers": stored.count("encoder.block"),
        "num_heads": num_heads,
        "relative_attention_num_buckets": num_buckets,
        "feed_forward_proj": "gated-gelu",  # T5 1.1, which alone has wi_0 and wi_1
    }
    return preset_files.parse(sizes, T5Config, stored.where)


def _fill(
    encoder: nn.Module,
    weights: Float8Files,
    prefix: str,
    names: Mapping[str, str],
    ignored: Collection[str],
    target: Target,
) -> None:
    """Fill from tensors of the same values under other names."""
    recipes = {ours: Recipe((f"{prefix}{stored}",)) for ours, stored in names.items()}

    def is_ignored(name: str) -> bool:
        return not name.startswith(prefix) or name.removeprefix(prefix) in ignored

    dtype = target.dtype or weights.pipeline_dtype
    fill(encoder, weights, recipes, replace(target, dtype=dtype), is_ignored)


def _stored_clip_name(name: str, stored: StoredShapes) -> str:
    bare = name.removeprefix(INNER_CLIP)
    return bare if bare in stored.shapes else f"{INNER_CLIP}{bare}"


def _widen_overflowing(t5: T5Encoder) -> None:
    """Keep in float32, as transformers does, what overflows in float16."""
    if t5.shared.weight.dtype == torch.float16:
        for module in t5.modules():
            if isinstance(module, T5GatedMLP):
                module.wo.float()
