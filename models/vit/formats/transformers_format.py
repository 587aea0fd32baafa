"""A directory that transformers wrote for ViT, as a backbone of ours and the head on it.

Reads `ViTModel` and `ViTForImageClassification`, with or without pooler, under the names that are
published (`encoder.layer.0.attention.attention.query`) and under those of transformers' own modules
since version 5 (`layers.0.attention.q_proj`). Source: transformers/models/vit (5.23). Knows nothing
about preprocessing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from models.checkpoints import preset_files, safetensors_files
from models.checkpoints.weights import Recipe
from models.presets.formats import StoredBackbone

PREFIX = "vit."  # of the backbone in a model with a head
_POSITIONS = "patching.position_embedding.weight"
_QKV = (".query", ".key", ".value")
# Of heads and of training: a pooler, a classifier, the reconstruction of masked patches.
_HEADS = ("pooler.", "classifier.", "decoder.", "embeddings.mask_token")


class ViTConfig(BaseModel):
    """The keys of `config.json` that decide about numbers, with transformers' defaults."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: Literal["gelu"] = "gelu"  # the exact one; our blocks have no other
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    layer_norm_eps: float = 1e-12
    image_size: int | tuple[int, int] = 224  # pixels: the side, or height and width
    patch_size: int | tuple[int, int] = 16
    num_channels: int = 3
    qkv_bias: bool = True
    id2label: dict[int, str] = {}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Give height, width and channels."""
        side = self.image_size
        height, width = (side, side) if isinstance(side, int) else side
        return height, width, self.num_channels


@dataclass(frozen=True, slots=True)
class _Names:
    """What the layers of one block are called."""

    block: str
    query: str
    key: str
    value: str
    attention_output: str
    dense_1: str
    dense_2: str


_PUBLISHED = _Names(
    block="encoder.layer.",
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    attention_output="attention.output.dense",
    dense_1="intermediate.dense",
    dense_2="output.dense",
)
_IN_MODULES = _Names(
    block="layers.",
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    attention_output="attention.o_proj",
    dense_1="mlp.fc1",
    dense_2="mlp.fc2",
)


def read_stored(directory: Path) -> StoredBackbone:
    """Read what builds the backbone.

    transformers keeps the output's bias where `qkv_bias` is false, KerasHub's `use_mha_bias` takes
    all four away: then the other three are zeros here, which gives the same numbers in a model that
    KerasHub has too.

    Raises PresetFileError for a missing or malformed file.
    """
    config = read_config(directory)
    return StoredBackbone(
        class_name="ViTBackbone",
        config={
            "image_shape": config.image_shape,
            "patch_size": config.patch_size,
            "num_layers": config.num_hidden_layers,
            "num_heads": config.num_attention_heads,
            "hidden_dim": config.hidden_size,
            "mlp_dim": config.intermediate_size,
            "dropout_rate": config.hidden_dropout_prob,
            "attention_dropout": config.attention_probs_dropout_prob,
            "layer_norm_epsilon": config.layer_norm_eps,
        },
        open_weights=partial(safetensors_files.open_transformers_weights, directory),
        recipes=lambda backbone: _recipes(backbone, config, directory),
        is_ignored=_is_of_a_head,
    )


def read_config(directory: Path) -> ViTConfig:
    """Read `config.json`.

    Raises PresetFileError for a missing or malformed file and for an activation other than GELU.
    """
    return preset_files.read_model(directory, preset_files.CONFIG_FILE, ViTConfig)


def _is_of_a_head(name: str) -> bool:
    return name.removeprefix(PREFIX).startswith(_HEADS)


def _recipes(backbone: nn.Module, config: ViTConfig, directory: Path) -> dict[str, Recipe]:
    theirs = dict(_modules(_prefix_and_names(directory), config.num_hidden_layers))
    recipes = {}
    for name, tensor in backbone.state_dict().items():
        module, _, kind = name.rpartition(".")
        if kind == "bias" and not config.qkv_bias and module.endswith(_QKV):
            recipes[name] = Recipe((), partial(torch.zeros, tensor.shape))
        elif name == _POSITIONS:
            recipes[name] = Recipe((theirs[name],), _without_batch)
        else:
            recipes[name] = Recipe((theirs.get(name) or f"{theirs[module]}.{kind}",))
    return recipes


def _prefix_and_names(directory: Path) -> tuple[str, _Names]:
    prefix = safetensors_files.transformers_prefix(directory, PREFIX)
    with safetensors_files.open_transformers_weights(directory) as weights:
        is_in_modules = any(name.startswith(prefix + _IN_MODULES.block) for name in weights.shapes)
    return prefix, _IN_MODULES if is_in_modules else _PUBLISHED


def _modules(prefix_and_names: tuple[str, _Names], num_layers: int) -> Iterator[tuple[str, str]]:
    """Pair our modules, and the parameters that are no module's with them, with theirs."""
    prefix, names = prefix_and_names
    yield "patching.class_token", f"{prefix}embeddings.cls_token"
    yield _POSITIONS, f"{prefix}embeddings.position_embeddings"
    yield "patching.patch_embedding", f"{prefix}embeddings.patch_embeddings.projection"
    for index in range(num_layers):
        ours, theirs = f"encoder_layers.{index}", f"{prefix}{names.block}{index}"
        yield f"{ours}.layer_norm_1", f"{theirs}.layernorm_before"
        yield f"{ours}.mha.query", f"{theirs}.{names.query}"
        yield f"{ours}.mha.key", f"{theirs}.{names.key}"
        yield f"{ours}.mha.value", f"{theirs}.{names.value}"
        yield f"{ours}.mha.attention_output", f"{theirs}.{names.attention_output}"
        yield f"{ours}.layer_norm_2", f"{theirs}.layernorm_after"
        yield f"{ours}.dense_1", f"{theirs}.{names.dense_1}"
        yield f"{ours}.dense_2", f"{theirs}.{names.dense_2}"
    yield "layer_norm", f"{prefix}layernorm"


def _without_batch(positions: Tensor) -> Tensor:
    """[1, L, D] to [L, D]."""
    return positions.squeeze(0)
