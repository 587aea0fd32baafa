"""Read FNet as Hugging Face `transformers` stores it: bare, or below any of its heads.

Source: transformers/models/fnet (5.23.0); the names have been the same since 4.11. What our
backbone does not compute (another epsilon, activation, no pooler) is refused, never approximated.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from torch import nn

from models.checkpoints import preset_files, safetensors_files
from models.checkpoints.weights import Recipe
from models.errors import PresetFileError
from models.fnet.backbone import LAYER_NORM_EPSILON
from models.presets.formats import StoredBackbone

PREFIX = "fnet."
HEAD_PREFIXES = ("cls.", "classifier.", "qa_outputs.")
# What follows from the configuration: positions that count from 0, segments of zeros and, for
# TPUs, the Fourier transform as two matrices.
BUFFER_ENDINGS = (".position_ids", ".token_type_ids", ".dft_mat_hidden", ".dft_mat_seq")
TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")  # one function, three spellings
MODULES = {  # theirs to ours, {} is the layer
    "embeddings.word_embeddings": "embeddings.token_embedding",
    "embeddings.position_embeddings": "embeddings.position_embedding",
    "embeddings.token_type_embeddings": "embeddings.segment_embedding",
    "embeddings.LayerNorm": "embeddings.layer_norm",
    "embeddings.projection": "embeddings.projection",
    "encoder.layer.{}.fourier.output.LayerNorm": "encoder_layers.{}.mixing_layer_norm",
    "encoder.layer.{}.intermediate.dense": "encoder_layers.{}.intermediate_dense",
    "encoder.layer.{}.output.dense": "encoder_layers.{}.output_dense",
    "encoder.layer.{}.output.LayerNorm": "encoder_layers.{}.output_layer_norm",
    "pooler.dense": "pooled_dense",
}


class FNetConfig(BaseModel):
    """`config.json`, with transformers' defaults for what a file leaves out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    vocab_size: int = 32_000
    hidden_size: int = 768
    num_hidden_layers: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 4
    layer_norm_eps: float = LAYER_NORM_EPSILON
    tie_word_embeddings: bool = True


def read_config(directory: Path) -> FNetConfig:
    """Read `config.json`.

    Raises PresetFileError for a missing or malformed file, or a model that ours does not compute.
    """
    config = preset_files.read_model(directory, preset_files.CONFIG_FILE, FNetConfig)
    where = directory / preset_files.CONFIG_FILE
    if config.hidden_act not in TANH_GELUS:
        raise PresetFileError(
            f"{where}: hidden_act is {config.hidden_act!r}; {', '.join(TANH_GELUS)} are allowed"
        )
    if config.layer_norm_eps != LAYER_NORM_EPSILON:
        raise PresetFileError(
            f"{where}: layer_norm_eps is {config.layer_norm_eps}; "
            f"only {LAYER_NORM_EPSILON} is allowed"
        )
    return config


def read_stored(directory: Path) -> StoredBackbone:
    """Read the backbone of a directory; a head's tensors are left to it.

    Raises PresetFileError for a missing or malformed file, or a model that ours does not compute.
    """
    config = read_config(directory)
    return StoredBackbone(
        class_name="FNetBackbone",
        config={
            "vocabulary_size": config.vocab_size,
            "num_layers": config.num_hidden_layers,
            "hidden_dim": config.hidden_size,
            "intermediate_dim": config.intermediate_size,
            "dropout": config.hidden_dropout_prob,
            "max_sequence_length": config.max_position_embeddings,
            "num_segments": config.type_vocab_size,
        },
        open_weights=lambda: safetensors_files.open_transformers_weights(directory),
        recipes=lambda backbone: _recipes(
            backbone, safetensors_files.transformers_prefix(directory, PREFIX)
        ),
        is_ignored=lambda name: name.startswith(HEAD_PREFIXES) or name.endswith(BUFFER_ENDINGS),
    )


def _recipes(backbone: nn.Module, prefix: str) -> Mapping[str, Recipe]:
    theirs = {ours: theirs for theirs, ours in MODULES.items()}
    recipes = {}
    for name in backbone.state_dict():
        module, _, ending = name.rpartition(".")
        layer = next((part for part in module.split(".") if part.isdecimal()), "")
        known = theirs[module.replace(f".{layer}.", ".{}.") if layer else module]
        recipes[name] = Recipe((f"{prefix}{known.format(layer)}.{ending}",))
    return recipes
