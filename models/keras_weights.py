"""KerasHub's weights of our backbones: reading them as our parameters, and writing them.

Joins what a family says of KerasHub's layers (`keras_layers`) to what lies in files
(`keras_files`). Norms that ours lack are folded into their modulation (`keras_fold`), which
remembers them. Source: keras_hub/src/utils/preset_utils.py (keras-hub 0.32.0).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from models.keras_files import KerasFiles
from models.keras_fold import Fold, FoldingLinear
from models.keras_layers import Form, KerasLayer, keras_layers, stored_name
from models.weights import Recipe

# Beside weights, Keras stores what training needs: an optimizer's state, a dropout's random state
_NOT_WEIGHTS = re.compile(r"optimizer/.*|(.*/)?seed_generator/vars/\d+")
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


def recipes(backbone: nn.Module) -> dict[str, Recipe]:
    """Say how each parameter is made of KerasHub's variables.

    Matrices come as views of what was read: a copy would cost more than it saves.
    """
    return {
        variable.parameter: _recipe(backbone, layer, index, variable.form)
        for layer in keras_layers(backbone)
        for index, variable in enumerate(layer.variables)
        if variable.parameter is not None
    }


def _recipe(backbone: nn.Module, layer: KerasLayer, index: int, form: Form) -> Recipe:
    stored = layer.stored_name(index)
    if not layer.norms:
        return Recipe((stored,), form.to_ours)
    assert layer.module is not None, "norms are folded into a module of ours: this is a bug"
    linear = backbone.get_submodule(layer.module)
    assert isinstance(linear, FoldingLinear), f"{layer.module} does not fold: this is a bug"
    affines = (stored_name(path, which) for path in layer.norms for which in _GAMMA_AND_BETA)
    return Recipe((stored, *affines), _folding(linear, form, is_bias=index == _BIAS))


def _folding(linear: FoldingLinear, form: Form, is_bias: bool) -> Callable[..., Tensor]:
    """Make a weight or bias of its own variable and the norms', which `linear` then remembers."""

    def make(stored: Tensor, *affines: Tensor) -> Tensor:
        fold, ours = Fold.of(affines), form.to_ours(stored)
        if not stored.is_meta:
            linear.fold = None if fold.is_trivial else fold
            if linear.fold is None:
                return ours
        return fold.bias_to_ours(ours) if is_bias else fold.to_ours(ours)

    return make
