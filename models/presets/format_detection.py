"""In which format a preset's files are, and which backbone they hold. Free of torch.

Tells the formats apart by content, as KerasHub does (keras_hub/src/utils/preset_utils.py, 0.32.0);
`formats` reads the rest.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.checkpoints.preset_files import (
    CONFIG_FILE,
    DIFFUSERS_INDEX_FILE,
    read_model,
    read_object,
)
from models.errors import PresetError, PresetFileError
from models.presets.file_selection import ORIGINAL_FLUX_FILES
from models.presets.flux_variants import require_text_to_image
from models.presets.table import PresetTask

_FLUX = "FluxBackbone"
_OF_TRANSFORMERS = {"vit": "ViTBackbone", "fnet": "FNetBackbone"}  # by model_type
_TASKS = {
    _FLUX: PresetTask.TEXT_TO_IMAGE,
    "ViTBackbone": PresetTask.IMAGE_CLASSIFICATION,
    "FNetBackbone": PresetTask.EMBEDDING,
}


class Format(StrEnum):
    ORIGINAL_FLUX = "original Flux"
    DIFFUSERS = "diffusers"
    KERAS = "KerasHub"
    TRANSFORMERS = "transformers"


@dataclass(frozen=True, slots=True)
class Contents:
    format: Format
    class_name: str  # of the backbone, such as "ViTBackbone"


class _FormatKeys(BaseModel):
    """The keys of `config.json` that tell whose it is."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    registered_name: str | None = None  # Keras
    model_type: str | None = None  # transformers
    diffusers_class: str | None = Field(None, alias="_class_name")


def detect(path: Path) -> Contents:
    """Tell what a directory, or a single file of original Flux weights, holds.

    Raises PresetFileError for a missing or malformed file and for a format that is not known.
    """
    names = (CONFIG_FILE, DIFFUSERS_INDEX_FILE)
    has_configuration = any((path / name).is_file() for name in names)
    if path.is_file() or (not has_configuration and any(path.glob(ORIGINAL_FLUX_FILES))):
        return Contents(Format.ORIGINAL_FLUX, _FLUX)
    if (path / DIFFUSERS_INDEX_FILE).is_file():
        return Contents(Format.DIFFUSERS, _FLUX)
    keys = read_model(path, CONFIG_FILE, _FormatKeys)
    if keys.registered_name is not None:
        stored = read_object(path, CONFIG_FILE)
        return Contents(Format.KERAS, stored.registered_name.rpartition(">")[2])
    if keys.model_type is not None:
        if keys.model_type not in _OF_TRANSFORMERS:
            raise PresetFileError(
                f"{path} holds a transformers model of type {keys.model_type!r}; "
                "vit and fnet are allowed"
            )
        return Contents(Format.TRANSFORMERS, _OF_TRANSFORMERS[keys.model_type])
    if keys.diffusers_class is not None:
        return Contents(Format.DIFFUSERS, _FLUX)
    raise PresetFileError(
        f"{path / CONFIG_FILE} is of no known format: it has none of the keys "
        "registered_name (KerasHub), model_type (transformers) and _class_name (diffusers)"
    )


def detect_task(path: Path) -> PresetTask:
    """Tell what a preset is for by the backbone that it holds.

    Raises PresetFileError as `detect` does, PresetError for a backbone that has no pipeline, and
    for a Flux model that does not paint from a text alone.
    """
    class_name = detect(path).class_name
    if class_name not in _TASKS:
        allowed = ", ".join(_TASKS)
        raise PresetError(f"{path} holds a {class_name}; pipelines exist for {allowed}")
    if class_name == _FLUX:
        require_text_to_image(path)
    return _TASKS[class_name]
