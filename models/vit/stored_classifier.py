"""What a ViT preset holds beside its backbone: head, label names, preprocessing.

Of a KerasHub task (`task.json`, `task.weights.h5`), of the same with safetensors, and of
transformers' `ViTForImageClassification`. Knows nothing about how pictures are classified.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import BaseModel
from torch import nn

from models import preset_files, transformers_files
from models.errors import PresetFileError
from models.keras.files import KerasFiles
from models.keras.layers import DenseKernel, counted
from models.keras.weights import is_not_a_weight
from models.safetensors_files import SafetensorsFiles
from models.vit import transformers_format
from models.vit.classification_head import TaskConfig
from models.vit.image_converter import ImageConverterConfig
from models.vit.image_converter_transformers import PROCESSOR_FILE, ProcessorConfig, Size
from models.vit.imagenet import NUM_LABELS, imagenet_labels
from models.weights import Recipe, Weights, identity_recipes, ignore_none

TASK_CLASS = "ViTImageClassifier"
CLASSIFIER = "classifier"  # transformers' name of its only layer


@dataclass(frozen=True, slots=True)
class StoredClassifier:
    """A classifier on disk; its backbone is read apart."""

    task: TaskConfig
    labels: tuple[str, ...]
    converter: ImageConverterConfig | ProcessorConfig | None  # None: tensors only, no pictures
    open_weights: Callable[[], Weights]
    recipes: Callable[[nn.Module], Mapping[str, Recipe]] = identity_recipes
    is_ignored: Callable[[str], bool] = ignore_none


class _Converter(BaseModel):
    config: ImageConverterConfig


class _PreprocessorConfig(BaseModel):
    image_converter: _Converter | None = None


class _Preprocessor(BaseModel):
    config: _PreprocessorConfig


class _StoredTask(TaskConfig):
    preprocessor: _Preprocessor | None = None


def read_stored(directory: Path) -> StoredClassifier:
    """Read what builds the classifier of a directory with a ViT backbone.

    Raises PresetFileError for a missing or malformed file, and for a backbone without classifier.
    """
    if (directory / preset_files.TASK_FILE).is_file():
        return _read_task(directory)
    if transformers_files.is_model(directory):
        return _read_transformers(directory)
    raise PresetFileError(
        f"{directory} holds a backbone without a classifier: there is no {preset_files.TASK_FILE}"
    )


def _read_task(directory: Path) -> StoredClassifier:
    registered_name = preset_files.read_object(directory, preset_files.TASK_FILE).registered_name
    if registered_name.rpartition(">")[2] != TASK_CLASS:
        raise PresetFileError(
            f"{directory / preset_files.TASK_FILE} is a {registered_name}; "
            f"keras_hub>{TASK_CLASS} is allowed"
        )
    task = preset_files.read_config(directory, preset_files.TASK_FILE, _StoredTask)
    stored = StoredClassifier(
        task=TaskConfig.model_validate(task.model_dump()),
        labels=_own_labels(directory) or _numbered_labels(task.num_classes),
        converter=_read_converter(directory, task),
        open_weights=partial(SafetensorsFiles, [directory / preset_files.TASK_WEIGHTS_FILE]),
    )
    keras_file = directory / preset_files.KERAS_TASK_WEIGHTS_FILE
    if not keras_file.is_file():
        return stored
    # H5 first, as for the backbone: where KerasHub saved over ours, its file is the newer
    return replace(
        stored,
        open_weights=partial(KerasFiles, keras_file, {keras_file: None}),
        recipes=_keras_recipes,
        is_ignored=is_not_a_weight,
    )


def _keras_recipes(head: nn.Module) -> dict[str, Recipe]:
    layers = keras_layers(head)
    kernels = {f"{ours}.weight": f"{path}/vars/0" for ours, path in layers.items()}
    biases = {f"{ours}.bias": f"{path}/vars/1" for ours, path in layers.items()}
    return {name: Recipe((stored,), DenseKernel().to_ours) for name, stored in kernels.items()} | {
        name: Recipe((stored,)) for name, stored in biases.items()
    }


def keras_layers(head: nn.Module) -> dict[str, str]:
    """Give the path in `task.weights.h5` of each layer of a head."""
    linears = (name for name, layer in head.named_children() if isinstance(layer, nn.Linear))
    return {name: f"layers/{counted('dense', index)}" for index, name in enumerate(linears)}


def _read_converter(
    directory: Path, task: _StoredTask
) -> ImageConverterConfig | ProcessorConfig | None:
    """Read the exact form of what KerasHub has no exact one for, or what KerasHub reads."""
    if (directory / PROCESSOR_FILE).is_file():
        return preset_files.read_model(directory, PROCESSOR_FILE, ProcessorConfig)
    nested = None if task.preprocessor is None else task.preprocessor.config.image_converter
    if nested is not None:
        return nested.config
    if (directory / preset_files.IMAGE_CONVERTER_FILE).is_file():
        return preset_files.read_config(
            directory, preset_files.IMAGE_CONVERTER_FILE, ImageConverterConfig
        )
    return None


def _read_transformers(directory: Path) -> StoredClassifier:
    config = transformers_format.read_config(directory)
    with transformers_files.open_weights(directory) as weights:
        shape = weights.shapes.get(f"{CLASSIFIER}.weight")
    if shape is None:
        raise PresetFileError(
            f"{directory} holds a backbone without a classifier: "
            f"its weights have no {CLASSIFIER}.weight"
        )
    return StoredClassifier(
        task=TaskConfig(num_classes=shape[0]),
        labels=(
            _own_labels(directory)
            or tuple(config.id2label[index] for index in sorted(config.id2label))
            or _numbered_labels(shape[0])
        ),
        converter=_read_processor(directory, config),
        open_weights=partial(transformers_files.open_weights, directory),
        recipes=_transformers_recipes,
        is_ignored=lambda name: not name.startswith(f"{CLASSIFIER}."),
    )


def _transformers_recipes(head: nn.Module) -> dict[str, Recipe]:
    return {
        name: Recipe((f"{CLASSIFIER}.{name.rpartition('.')[2]}",)) for name in head.state_dict()
    }


def _read_processor(directory: Path, config: transformers_format.ViTConfig) -> ProcessorConfig:
    """Read the preprocessing; where there is none, transformers' defaults at the model's size."""
    if (directory / PROCESSOR_FILE).is_file():
        return preset_files.read_model(directory, PROCESSOR_FILE, ProcessorConfig)
    height, width, _ = config.image_shape
    return ProcessorConfig(size=Size(height=height, width=width))


def _own_labels(directory: Path) -> tuple[str, ...]:
    is_there = (directory / preset_files.LABELS_FILE).is_file()
    return preset_files.read_labels(directory) if is_there else ()


def _numbered_labels(num_classes: int) -> tuple[str, ...]:
    """Name classes that the preset only numbers; KerasHub's thousand are those of ImageNet."""
    if num_classes == NUM_LABELS:
        return imagenet_labels()
    return tuple(f"class {index}" for index in range(num_classes))
