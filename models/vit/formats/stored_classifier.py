"""What a ViT preset holds beside its backbone: head, label names, preprocessing.

Of a KerasHub task (`task.json`, `task.weights.h5`), of the same with safetensors, and of
transformers' `ViTForImageClassification`. Knows nothing about how images are classified.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from models.checkpoints import preset_files, safetensors_files
from models.checkpoints.safetensors_files import SafetensorsFiles
from models.checkpoints.weights import Recipe
from models.errors import PresetFileError
from models.keras.layers import counted
from models.keras.task_heads import StoredHead, keras_dense, keras_head, require_task
from models.presets.format_detection import Format, detect
from models.vit.classification_head import TaskConfig
from models.vit.formats import transformers_format
from models.vit.formats.image_converter_transformers import (
    HALF,
    PROCESSOR_FILE,
    ProcessorConfig,
    Size,
)
from models.vit.image_converter import ImageConverterConfig
from models.vit.imagenet import NUM_LABELS, imagenet_labels

TASK_CLASS = "ViTImageClassifier"
TRANSFORMERS_RECIPES = {
    "predictions.weight": Recipe(("classifier.weight",)),
    "predictions.bias": Recipe(("classifier.bias",)),
}


@dataclass(frozen=True, slots=True)
class StoredClassifier:
    """A classifier on disk; its backbone is read apart."""

    task: TaskConfig
    labels: tuple[str, ...]
    converter: ImageConverterConfig | ProcessorConfig | None  # None: tensors only, no images
    head: StoredHead


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
    if detect(directory).format is Format.TRANSFORMERS:
        return _read_transformers(directory)
    require_task(directory, TASK_CLASS)
    return _read_task(directory)


def _read_task(directory: Path) -> StoredClassifier:
    task = preset_files.read_config(directory, preset_files.TASK_FILE, _StoredTask)
    return StoredClassifier(
        task=TaskConfig.model_validate(task.model_dump()),
        labels=_own_labels(directory) or _numbered_labels(task.num_classes),
        converter=_read_converter(directory, task),
        head=_head_of_task(directory, task),
    )


def _head_of_task(directory: Path, task: TaskConfig) -> StoredHead:
    """Prefer H5, as for the backbone: where KerasHub saved over ours, its file is the newer."""
    dense = (keras_dense(name, path) for name, path in keras_paths(task).items())
    recipes = {name: recipe for layer in dense for name, recipe in layer.items()}
    if (directory / preset_files.KERAS_TASK_WEIGHTS_FILE).is_file():
        return keras_head(directory, recipes)
    return StoredHead(
        partial(SafetensorsFiles, [directory / preset_files.TASK_WEIGHTS_FILE]),
        {name: Recipe((name,)) for name in recipes},
    )


def keras_paths(task: TaskConfig) -> dict[str, str]:
    """Give the path in `task.weights.h5` of each layer of a head."""
    names = ("predictions",) if task.intermediate_dim is None else ("pre_logits", "predictions")
    return {name: f"layers/{counted('dense', index)}" for index, name in enumerate(names)}


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
    with safetensors_files.open_transformers_weights(directory) as weights:
        shape = weights.shapes.get("classifier.weight")
    if shape is None:
        raise PresetFileError(
            f"{directory} holds a backbone without a classifier: "
            "its weights have no classifier.weight"
        )
    return StoredClassifier(
        task=TaskConfig(num_classes=shape[0]),
        labels=(
            _own_labels(directory)
            or tuple(config.id2label[index] for index in sorted(config.id2label))
            or _numbered_labels(shape[0])
        ),
        converter=_read_processor(directory, config),
        head=StoredHead(
            partial(safetensors_files.open_transformers_weights, directory),
            TRANSFORMERS_RECIPES,
            is_ignored=lambda name: not name.startswith("classifier."),
        ),
    )


def _read_processor(directory: Path, config: transformers_format.ViTConfig) -> ProcessorConfig:
    """Read the preprocessing; where there is none, transformers' defaults at the model's size."""
    if (directory / PROCESSOR_FILE).is_file():
        return preset_files.read_model(directory, PROCESSOR_FILE, ProcessorConfig)
    height, width, num_channels = config.image_shape
    half = (HALF,) * num_channels
    return ProcessorConfig(size=Size(height=height, width=width), image_mean=half, image_std=half)


def _own_labels(directory: Path) -> tuple[str, ...]:
    is_there = (directory / preset_files.LABELS_FILE).is_file()
    return preset_files.read_labels(directory) if is_there else ()


def _numbered_labels(num_classes: int) -> tuple[str, ...]:
    """Name classes that the preset only numbers; KerasHub's thousand are those of ImageNet."""
    if num_classes == NUM_LABELS:
        return imagenet_labels()
    return tuple(f"class {index}" for index in range(num_classes))
