"""The files of a preset directory: what they are called, and their JSON. Free of torch.

KerasHub's form (keras_hub/src/utils/preset_utils.py, keras-hub 0.32.0). Every file is written under
another name first and then renamed, so that a reader sees the old file or the new one. Knows
nothing about weights.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from models.checkpoints.open_files import open_file
from models.errors import PresetFileError

CONFIG_FILE = "config.json"
METADATA_FILE = "metadata.json"
WEIGHTS_STEM = "model"  # of safetensors
KERAS_WEIGHTS_FILE = "model.weights.h5"
KERAS_INDEX_FILE = "model.weights.json"  # of shards
KERAS_WEIGHTS_FILES = (KERAS_WEIGHTS_FILE, KERAS_INDEX_FILE)
TASK_FILE = "task.json"
# Of the head: what the task has beside the backbone
TASK_WEIGHTS_FILE = "task.safetensors"
KERAS_TASK_WEIGHTS_FILE = "task.weights.h5"
PREPROCESSOR_FILE = "preprocessor.json"
IMAGE_CONVERTER_FILE = "image_converter.json"
TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_FILE = "assets/tokenizer/vocabulary.spm"
LABELS_FILE = "labels.json"  # class names in order of class id; KerasHub has no such file

DIFFUSERS_INDEX_FILE = "model_index.json"  # what makes a directory one of diffusers' layout
MAX_JSON_BYTES = 2**26  # the index of a thousand shards has one

Config = TypeVar("Config", bound=BaseModel)


class KerasObject(BaseModel):
    """How Keras serialises any object; `registered_name` decides about the class."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    module: str | None = None
    class_name: str
    config: dict[str, object]
    registered_name: str


def is_diffusers_directory(directory: Path) -> bool:
    return (directory / DIFFUSERS_INDEX_FILE).is_file()


def read_object(directory: Path, name: str) -> KerasObject:
    """Read a serialised object.

    Raises PresetFileError for a missing or malformed file.
    """
    return read_model(directory, name, KerasObject)


def read_model(directory: Path, name: str, model: type[Config]) -> Config:
    """Read a JSON file into a pydantic model.

    Raises PresetFileError for a missing file or one that does not fit.
    """
    return parse(_read_json(directory / name), model, directory / name)


def read_config(directory: Path, name: str, model: type[Config]) -> Config:
    """Read the `config` of a serialised object into a pydantic model.

    Raises PresetFileError for a missing file or one that does not fit.
    """
    return parse(read_object(directory, name).config, model, directory / name)


def read_labels(directory: Path) -> tuple[str, ...]:
    """Read the class names in order of class id.

    Raises PresetFileError for a missing file or one that is not a list of strings.
    """
    labels = _read_json(directory / LABELS_FILE)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise PresetFileError(f"{directory / LABELS_FILE} is not a list of strings")
    return tuple(labels)


@contextmanager
def reading(folder: Path) -> Iterator[Path]:
    """Give a folder to a library that reads it, and raise PresetFileError where that fails.

    A missing folder never reaches the library, which would take its path for a hub's handle.
    """
    if not folder.is_dir():
        raise PresetFileError(f"{folder} is missing")
    try:
        yield folder
    except (OSError, ValueError, SafetensorError) as error:
        raise PresetFileError(f"{folder} cannot be read: {error}") from error


def write_object(directory: Path, name: str, keras_object: KerasObject) -> None:
    write_json(directory, name, keras_object.model_dump())


def write_json(directory: Path, name: str, value: object) -> None:
    """Write JSON as KerasHub does: indent 4, no newline at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / name) as written:
        written.write_text(json.dumps(value, indent=4))


def parse(value: object, model: type[Config], file: Path) -> Config:
    """Turn what a file holds into a pydantic model.

    Raises PresetFileError where it does not fit.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise PresetFileError(f"{file} is malformed: {error}") from error


def _read_json(file: Path) -> object:
    with open_file(file) as opened:
        try:
            content = opened.read(MAX_JSON_BYTES + 1)
            if len(content) > MAX_JSON_BYTES:
                raise ValueError(f"it has more than {MAX_JSON_BYTES} bytes")
            value: object = json.loads(content.decode())
        except (OSError, RecursionError, ValueError) as error:
            raise PresetFileError(f"{file} cannot be read: {error}") from error
    return value


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a name to write under; it takes the file's place at the end."""
    written = file.with_name(f".{file.name}.{os.getpid()}.{get_ident()}")
    try:
        yield written
        os.replace(written, file)
    finally:
        written.unlink(missing_ok=True)
