"""Configuration and weights of the backbone in a directory, whatever their format.

`format_detection` tells the formats apart; each format's own module knows the rest. Knows nothing
about handles.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from models.checkpoints import preset_files
from models.checkpoints.safetensors_files import SafetensorsFiles
from models.checkpoints.weights import Recipe, Weights, identity_recipes, ignore_none
from models.keras import weights as keras_weights
from models.keras.layers import KerasModel
from models.presets.format_detection import Format, detect

# Families lie above: their readers are imported when a file asks for one.
_READERS = {
    (Format.ORIGINAL_FLUX, "FluxBackbone"): "models.flux.formats.original_format",
    (Format.DIFFUSERS, "FluxBackbone"): "models.flux.formats.diffusers_directory",
    (Format.TRANSFORMERS, "ViTBackbone"): "models.vit.formats.transformers_format",
    (Format.TRANSFORMERS, "FNetBackbone"): "models.fnet.formats.transformers_format",
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


def read_stored(path: Path) -> StoredBackbone:
    """Read what builds the backbone in a directory, or in one file of original Flux weights.

    Raises PresetFileError for a missing or malformed file, PresetError for a backbone that is not
    one of ours.
    """
    contents = detect(path)
    if contents.format is Format.KERAS:
        return _read_keras(path, contents.class_name)
    reader = cast("_Reader", import_module(_READERS[contents.format, contents.class_name]))
    return reader.read_stored(path)


def _read_keras(directory: Path, class_name: str) -> StoredBackbone:
    stored = preset_files.read_object(directory, preset_files.CONFIG_FILE)
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
