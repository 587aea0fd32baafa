"""KerasHub's weights of our backbones: reading them as our parameters, and writing them.

Joins what a family says of KerasHub's layers (`keras.layers`) to what lies in files
(`keras.files`). Norms that ours lack are folded into their modulation (`layers.norm_folding`),
which remembers them. Source: keras_hub/src/utils/preset_utils.py (keras-hub 0.32.0).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor, nn

from models.checkpoints import preset_files
from models.checkpoints.weights import Recipe
from models.keras.files import KerasFiles
from models.keras.layers import Form, KerasLayer, KerasModel, stored_name
from models.keras.writing import StoredLayer, shard_bytes, write_shards, write_whole
from models.layers.adapters import merged_state
from models.layers.norm_folding import Fold, FoldingLinear

# Beside weights, Keras stores what training needs: an optimizer's state, a dropout's random state
_NOT_WEIGHTS = re.compile(r"optimizer/.*|(.*/)?seed_generator/vars/\d+")
# What is written is what these versions write
KERAS_VERSION = "3.15.1"
KERAS_HUB_VERSION = "0.32.0"

_GAMMA_AND_BETA = (0, 1)
_BIAS = 1


def open_weights(directory: Path) -> KerasFiles:
    """Open `model.weights.h5` or its shards.

    Raises PresetFileError for a missing or malformed file.
    """
    return KerasFiles.in_directory(directory)


def is_not_a_weight(stored: str) -> bool:
    """Say whether a dataset belongs to training alone."""
    return _NOT_WEIGHTS.fullmatch(stored) is not None


def recipes(backbone: KerasModel) -> dict[str, Recipe]:
    """Say how each parameter is made of KerasHub's variables.

    Matrices come as views of what was read: a copy would cost more than it saves.
    """
    return {
        variable.parameter: _recipe(backbone, layer, index, variable.form)
        for layer in backbone.keras_layers()
        for index, variable in enumerate(layer.variables)
        if variable.parameter is not None
    }


def write(backbone: KerasModel, directory: Path, max_shard_size: float | None = 10) -> None:
    """Write `config.json`, `metadata.json` and the weights as KerasHub does.

    `max_shard_size` in GB (2**30 bytes) decides whether the weights are one file or shards; None
    is one file. Adapters are written as part of the weights that they add to.

    Raises ValueError for a variable larger than a shard, and for a backbone on the meta device;
    then what was there stays.
    """
    limit = shard_bytes(max_shard_size)
    layers, state = backbone.keras_layers(), merged_state(backbone)
    directory.mkdir(parents=True, exist_ok=True)
    num_bytes = parameter_count(backbone) * next(iter(state.values())).itemsize
    stored = (StoredLayer(layer.path, layer.name, _variables(layer, state)) for layer in layers)
    if num_bytes <= limit:
        write_whole(directory / preset_files.KERAS_WEIGHTS_FILE, stored)
    else:
        write_shards(directory, stored, limit)
    write_description(backbone, directory)


def write_description(backbone: KerasModel, directory: Path) -> None:
    """Write `config.json` and `metadata.json`."""
    preset_files.write_object(directory, preset_files.CONFIG_FILE, backbone.to_keras_object())
    preset_files.write_json(directory, preset_files.METADATA_FILE, _metadata(backbone))


def parameter_count(backbone: KerasModel) -> int:
    """Count as KerasHub does: with the gammas and betas that we fold away."""
    variables = [each for layer in backbone.keras_layers() for each in layer.variables]
    folded = [each.constant.numel() for each in variables if each.constant is not None]
    state: Mapping[str, Tensor] = backbone.state_dict()
    return sum(folded) + sum(state[each.parameter].numel() for each in variables if each.parameter)


def _variables(layer: KerasLayer, state: Mapping[str, Tensor]) -> Iterator[Tensor]:
    for index, variable in enumerate(layer.variables):
        if variable.parameter is None:
            assert variable.constant is not None, "nothing to write: this is a bug"
            yield variable.constant.to(next(iter(state.values())).dtype)
            continue
        ours = state[variable.parameter]
        if layer.fold is not None:
            unfold = layer.fold.bias_to_keras if index == _BIAS else layer.fold.to_keras
            ours = unfold(ours).to(ours.dtype)
        yield variable.form.to_keras(ours)


def _metadata(backbone: KerasModel) -> dict[str, object]:
    return {
        "keras_version": KERAS_VERSION,
        "keras_hub_version": KERAS_HUB_VERSION,
        "parameter_count": parameter_count(backbone),
        "date_saved": datetime.now(UTC).strftime("%Y-%m-%d@%H:%M:%S"),
        "tasks": list(backbone.keras_tasks),
    }


def _recipe(backbone: nn.Module, layer: KerasLayer, index: int, form: Form) -> Recipe:
    stored = layer.stored_name(index)
    if not layer.norms:
        return Recipe((stored,), form.to_ours)
    assert layer.module is not None, "norms are folded into a module of ours: this is a bug"
    linear = backbone.get_submodule(layer.module)
    assert isinstance(linear, FoldingLinear), f"{layer.module} does not fold: this is a bug"
    affines = (stored_name(path, which) for path in layer.norms for which in _GAMMA_AND_BETA)
    return Recipe((stored, *affines), _folding(linear, form, is_bias=index == _BIAS), computes=True)


def _folding(linear: FoldingLinear, form: Form, is_bias: bool) -> Callable[..., Tensor]:
    """Make a weight or bias of its own variable and the norms', which `linear` then remembers."""

    def make(stored: Tensor, *affines: Tensor) -> Tensor:
        ours = form.to_ours(stored)
        if any(tuple(affine.shape) != (linear.in_features,) for affine in affines):
            raise ValueError(f"norms are not {linear.in_features} wide")
        if stored.is_meta:  # folding changes no shape
            return ours
        fold = Fold.of(affines)
        linear.fold = None if fold.is_trivial else fold
        if linear.fold is None:
            return ours
        return fold.bias_to_ours(ours) if is_bias else fold.to_ours(ours)

    return make
