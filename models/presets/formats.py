"""What lies in a directory, and in which format: configuration and weights of one backbone.

Tells the formats apart by content, as KerasHub does (keras_hub/src/utils/preset_utils.py, 0.32.0);
each format's own module knows the rest. Knows nothing about handles.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from pydantic import BaseModel, ConfigDict, Field

from models.checkpoints import preset_files
from models.checkpoints.safetensors_files import SafetensorsFiles
from models.checkpoints.weights import Recipe, Weights, identity_recipes, ignore_none
from models.errors import PresetFileError
from models.keras import weights as keras_weights
from models.keras.model import KerasModel
from models.presets.file_selection import ORIGINAL_FLUX_FILES

# Families lie above: their readers are imported when a file asks for one.
_ORIGINAL_FLUX = "models.flux.formats.original_format"
_DIFFUSERS_FLUX = "models.flux.formats.diffusers_directory"
_TRANSFORMERS = {  # by model_type
    "vit": "models.vit.formats.transformers_format",
    "fnet": "models.fnet.formats.transformers_format",
}


@dataclass(frozen=True, slots=True)
class StoredBackbone:
    """A backbone on disk: how to build it, and how to give it its weights."""

    class_name: str  # "ViTBackbone"
    config: dict[str, object]  # arguments of its constructor
    open_weights: Callable[[], Weights]
    recipes: Callable[[KerasModel], Mapping[str, Recipe]] = identity_recipes
    is_ignored: Callable[[str], bool] = ignore_none  # stored tensors of a head


class _Reader(Protocol):
    """A module of a family's formats."""

    def read_stored(self, path: Path) -> StoredBackbone: ...


class _FormatKeys(BaseModel):
    """The keys of `config.json` that tell whose it is."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    registered_name: str | None = None  # Keras
    model_type: str | None = None  # transformers
    diffusers_class: str | None = Field(None, alias="_class_name")


def read_stored(path: Path) -> StoredBackbone:
    """Read what builds the backbone in a directory, or in one file of original Flux weights.

    Raises PresetFileError for a missing or malformed file, PresetError for a backbone that is not
    one of ours.
    """
    if path.is_file() or (not _has_configuration(path) and _has_original_weights(path)):
        return _reader(_ORIGINAL_FLUX).read_stored(path)
    if (path / preset_files.DIFFUSERS_INDEX_FILE).is_file():
        return _reader(_DIFFUSERS_FLUX).read_stored(path)
    keys = preset_files.read_model(path, preset_files.CONFIG_FILE, _FormatKeys)
    if keys.registered_name is not None:
        return _read_keras(path)
    if keys.model_type is not None:
        return _read_transformers(path, keys.model_type)
    if keys.diffusers_class is not None:
        return _reader(_DIFFUSERS_FLUX).read_stored(path)
    raise PresetFileError(
        f"{path / preset_files.CONFIG_FILE} is of no known format: it has none of the keys "
        "registered_name (KerasHub), model_type (transformers) and _class_name (diffusers)"
    )


def _has_configuration(directory: Path) -> bool:
    names = (preset_files.CONFIG_FILE, preset_files.DIFFUSERS_INDEX_FILE)
    return any((directory / name).is_file() for name in names)


def _has_original_weights(directory: Path) -> bool:
    return any(directory.glob(ORIGINAL_FLUX_FILES))


def _read_keras(directory: Path) -> StoredBackbone:
    stored = preset_files.read_object(directory, preset_files.CONFIG_FILE)
    class_name = stored.registered_name.rpartition(">")[2]
    # H5 first: where KerasHub saved over a preset of ours, its file is the newer.
    if any((directory / name).is_file() for name in preset_files.KERAS_WEIGHTS_FILES):
        return StoredBackbone(
            class_name,
            stored.config,
            lambda: keras_weights.open_weights(directory),
            keras_weights.recipes,
            keras_weights.is_not_a_weight,
        )
    return StoredBackbone(
        class_name,
        stored.config,
        lambda: SafetensorsFiles.in_directory(directory, preset_files.WEIGHTS_STEM),
    )


def _read_transformers(directory: Path, model_type: str) -> StoredBackbone:
    if model_type not in _TRANSFORMERS:
        raise PresetFileError(
            f"{directory} holds a transformers model of type {model_type!r}; "
            "vit and fnet are allowed"
        )
    return _reader(_TRANSFORMERS[model_type]).read_stored(directory)


def _reader(module: str) -> _Reader:
    return cast("_Reader", import_module(module))
