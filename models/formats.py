"""What lies in a directory, and in which format: configuration and weights of one backbone.

Tells the formats apart by content, as KerasHub does (keras_hub/src/utils/preset_utils.py, 0.32.0);
each format's own module knows the rest. Knows nothing about handles.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models import preset_files
from models.errors import PresetFileError
from models.safetensors_files import SafetensorsFiles
from models.stored_backbone import StoredBackbone


class _Tells(BaseModel):
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
        from models.flux.original_format import read_stored as read_original

        return read_original(path)
    if (path / preset_files.DIFFUSERS_INDEX_FILE).is_file():
        return _read_diffusers(path)
    tells = preset_files.read_model(path, preset_files.CONFIG_FILE, _Tells)
    if tells.registered_name is not None:
        return _read_keras(path)
    if tells.model_type is not None:
        return _read_transformers(path, tells.model_type)
    if tells.diffusers_class is not None:
        return _read_diffusers(path)
    raise PresetFileError(
        f"{path / preset_files.CONFIG_FILE} is of no known format: it has none of the keys "
        "registered_name (KerasHub), model_type (transformers) and _class_name (diffusers)"
    )


def _has_configuration(directory: Path) -> bool:
    names = (preset_files.CONFIG_FILE, preset_files.DIFFUSERS_INDEX_FILE)
    return any((directory / name).is_file() for name in names)


def _has_original_weights(directory: Path) -> bool:
    return any(directory.glob(preset_files.ORIGINAL_FLUX_FILES))


def _read_keras(directory: Path) -> StoredBackbone:
    stored = preset_files.read_object(directory, preset_files.CONFIG_FILE)
    class_name = stored.registered_name.rpartition(">")[2]
    # H5 first: where KerasHub saved over a preset of ours, its file is the newer.
    if any((directory / name).is_file() for name in preset_files.KERAS_WEIGHTS_FILES):
        from models.keras import weights as keras_weights

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
    match model_type:
        case "vit":
            from models.vit.transformers_format import read_stored as read_vit

            return read_vit(directory)
        case "fnet":
            from models.fnet.transformers_format import read_stored as read_fnet

            return read_fnet(directory)
        case _:
            raise PresetFileError(
                f"{directory} holds a transformers model of type {model_type!r}; "
                "vit and fnet are allowed"
            )


def _read_diffusers(directory: Path) -> StoredBackbone:
    from models.flux import diffusers_directory

    return diffusers_directory.read_stored(directory)
