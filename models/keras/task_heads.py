"""Heads on disk, and giving one its weights: of KerasHub's tasks and of `transformers`.

A task's `task.json` says what it is, its `task.weights.h5` holds what it has beside the backbone,
which is read apart. Source: keras_hub/src/models/task.py (keras-hub 0.32.0). Knows nothing about
what heads compute.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from models.checkpoints import preset_files
from models.checkpoints.filling import Target, fill
from models.checkpoints.weights import Recipe, Weights, ignore_none
from models.errors import PresetFileError
from models.keras.files import KerasFiles
from models.keras.layers import DenseKernel, stored_name
from models.keras.weights import is_not_a_weight

Head = TypeVar("Head", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class StoredHead:
    """Where the tensors of a head are, and how they make our parameters."""

    open_weights: Callable[[], Weights]
    recipes: Mapping[str, Recipe]  # by our parameter
    is_ignored: Callable[[str], bool] = ignore_none  # stored tensors that are not the head's


def load_head(build: Callable[[], Head], stored: StoredHead, beside: Tensor) -> Head:
    """Build a head and fill it, in evaluation mode; dtype and device are those of `beside`.

    Raises PresetFileError for a file that cannot be read, WeightsError for weights that do not fit.
    """
    with torch.device("meta"):
        head = build()
    with stored.open_weights() as weights:
        target = Target(beside.device, beside.dtype)
        fill(head, weights, stored.recipes, target, stored.is_ignored)
    return head.eval()


def keras_head(directory: Path, recipes: Mapping[str, Recipe]) -> StoredHead:
    """Find a head in the weights of a KerasHub task."""
    file = directory / preset_files.KERAS_TASK_WEIGHTS_FILE
    return StoredHead(lambda: KerasFiles(file, {file: None}), recipes, is_not_a_weight)


def keras_dense(module: str, path: str) -> dict[str, Recipe]:
    """Say where Keras stores a dense layer."""
    return {
        f"{module}.weight": Recipe((stored_name(path, 0),), DenseKernel().to_ours),
        f"{module}.bias": Recipe((stored_name(path, 1),)),
    }


def require_task(directory: Path, class_name: str) -> None:
    """Check which task a KerasHub preset is for.

    Raises PresetFileError for a missing or malformed `task.json`, or another task.
    """
    if not (directory / preset_files.TASK_FILE).is_file():
        raise PresetFileError(
            f"{directory} holds a backbone without a head: there is no {preset_files.TASK_FILE}"
        )
    registered_name = preset_files.read_object(directory, preset_files.TASK_FILE).registered_name
    if registered_name.rpartition(">")[2] != class_name:
        raise PresetFileError(
            f"{directory / preset_files.TASK_FILE} is a {registered_name}; "
            f"keras_hub>{class_name} is allowed"
        )
