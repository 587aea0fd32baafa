"""Read and write the files of a preset directory.

JSON in KerasHub's form (keras_hub/src/utils/preset_utils.py, keras-hub 0.32.0), weights as
safetensors named by our modules. Every file is written under another name first and then renamed,
so that a reader sees the old file or the new one. Knows nothing about what the weights mean.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from models.errors import PresetFileError, UnknownPresetError, WeightsError
from models.presets import PRESETS

CONFIG_FILE = "config.json"
METADATA_FILE = "metadata.json"
WEIGHTS_STEM = "model"
KERAS_WEIGHTS_FILES = ("model.weights.h5", "model.weights.json")  # whole, or the index of shards
WEIGHTS_FILE = "model.safetensors"
TASK_FILE = "task.json"
TASK_WEIGHTS_FILE = "task.safetensors"  # of the head: what the task has beside the backbone
PREPROCESSOR_FILE = "preprocessor.json"
IMAGE_CONVERTER_FILE = "image_converter.json"
TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_FILE = "assets/tokenizer/vocabulary.spm"
LABELS_FILE = "labels.json"  # class names in order of class id; KerasHub has no such file

ORIGINAL_FLUX_FILES = "flux1-*.safetensors"  # as black-forest-labs name them
DIFFUSERS_INDEX_FILE = "model_index.json"  # what makes a directory one of diffusers' layout

MAX_NAMES_IN_MESSAGE = 5
READABLE_BY_ALL = 0o644

Config = TypeVar("Config", bound=BaseModel)


class KerasObject(BaseModel):
    """How Keras serialises any object; `registered_name` decides about the class."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    module: str | None = None
    class_name: str
    config: dict[str, object]
    registered_name: str


def find_directory(preset: str | Path) -> Path:
    """Give the directory of a built-in name, which comes first, or of a path.

    Raises UnknownPresetError for neither.
    """
    if isinstance(preset, str) and preset in PRESETS:
        return Path(PRESETS[preset].handle)
    directory = Path(preset)
    if not directory.is_dir():
        allowed = ", ".join(sorted(PRESETS))
        raise UnknownPresetError(
            f"preset {str(preset)!r} is not one of {allowed}, and no directory has this path"
        )
    return directory


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
    return _parse(_read_json(directory / name), model, directory / name)


def read_config(directory: Path, name: str, model: type[Config]) -> Config:
    """Read the `config` of a serialised object into a pydantic model.

    Raises PresetFileError for a missing file or one that does not fit.
    """
    return _parse(read_object(directory, name).config, model, directory / name)


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


def write_metadata(directory: Path, num_parameters: int) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%d@%H:%M:%S")
    write_json(directory, METADATA_FILE, {"parameter_count": num_parameters, "date_saved": now})


def write_json(directory: Path, name: str, value: object) -> None:
    """Write JSON as KerasHub does: indent 4, no newline at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / name) as written:
        written.write_text(json.dumps(value, indent=4))


def dtype_policy(name: str) -> dict[str, object]:
    """Serialise a dtype as Keras does."""
    return {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": name},
        "registered_name": None,
    }


def save_weights(module: nn.Module, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().contiguous().cpu() for name, tensor in module.state_dict().items()
    }
    with replacing(file) as written:
        save_file(state, written)
        written.chmod(READABLE_BY_ALL)  # safetensors makes it the owner's alone


def load_weights(module: nn.Module, file: Path, dtype: torch.dtype) -> None:
    """Give every parameter of a module on the meta device its tensor from the file.

    Raises PresetFileError for a missing or unreadable file, WeightsError for tensors that are
    missing, left over or of the wrong shape; then the module is unchanged.
    """
    if not file.is_file():
        raise PresetFileError(f"{file} is missing")
    wanted = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    try:
        with safe_open(file, framework="pt") as weights:
            stored = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
            _check_fit(wanted, stored, file)
            state = {name: weights.get_tensor(name).to(dtype) for name in wanted}
    except SafetensorError as error:
        raise PresetFileError(f"{file} is not a safetensors file: {error}") from error
    module.load_state_dict(state, assign=True)


def _check_fit(wanted: dict[str, list[int]], stored: dict[str, list[int]], file: Path) -> None:
    wrong = [
        f"{name} is {stored[name]}, not {wanted[name]}"
        for name in wanted.keys() & stored.keys()
        if stored[name] != wanted[name]
    ]
    faults = (
        ("missing", sorted(wanted.keys() - stored.keys())),
        ("left over", sorted(stored.keys() - wanted.keys())),
        ("of a wrong shape", sorted(wrong)),
    )
    said = "; ".join(f"{kind}: {_some(names)}" for kind, names in faults if names)
    if said:
        raise WeightsError(f"{file}: {said}")


def _some(names: list[str]) -> str:
    more = len(names) - MAX_NAMES_IN_MESSAGE
    shown = ", ".join(names[:MAX_NAMES_IN_MESSAGE])
    return f"{shown} and {more} more" if more > 0 else shown


def _parse(value: object, model: type[Config], file: Path) -> Config:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise PresetFileError(f"{file} is malformed: {error}") from error


def _read_json(file: Path) -> object:
    try:
        value: object = json.loads(file.read_text())
    except FileNotFoundError:
        raise PresetFileError(f"{file} is missing") from None
    except (OSError, ValueError) as error:
        raise PresetFileError(f"{file} cannot be read: {error}") from error
    return value


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a name to write under; it takes the file's place at the end."""
    written = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield written
        os.replace(written, file)
    finally:
        written.unlink(missing_ok=True)
