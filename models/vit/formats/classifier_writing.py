"""Write what a ViT preset holds beside its backbone, so that KerasHub reads it too.

The forms: keras_hub/src/models/vit/vit_image_classifier.py and vit_image_converter.py (0.32.0).
Knows nothing about the backbone but its configuration.
"""

from pathlib import Path

import torch

from models.backbone import WeightsFormat
from models.checkpoints import preset_files
from models.checkpoints.preset_files import KerasObject
from models.checkpoints.safetensors_files import save_safetensors
from models.keras.layers import DenseKernel
from models.keras.writing import StoredLayer, write_whole
from models.layers.dtypes import dtype_policy
from models.vit.classification_head import ClassificationHead
from models.vit.formats.stored_classifier import TASK_CLASS, keras_paths
from models.vit.image_converter import ImageConverterConfig

LEARNING_RATE = 5e-5  # of the optimizer that KerasHub's classifiers are compiled with


def write_head(directory: Path, head: ClassificationHead, weights_format: WeightsFormat) -> None:
    """Write the head's weights, in the format of the backbone's."""
    state = head.state_dict()
    keras_file = directory / preset_files.KERAS_TASK_WEIGHTS_FILE
    if weights_format == "safetensors":
        save_safetensors(state, directory / preset_files.TASK_WEIGHTS_FILE)
        keras_file.unlink(missing_ok=True)  # it would be read instead
        return
    form = DenseKernel()
    layers = [
        StoredLayer(path, name, (form.to_keras(state[f"{name}.weight"]), state[f"{name}.bias"]))
        for name, path in keras_paths(head.config).items()
    ]
    write_whole(keras_file, [*layers, _fresh_optimizer()])


def _fresh_optimizer() -> StoredLayer:
    """Give the optimizer that every task has: KerasHub warns where the file holds none."""
    iterations = torch.tensor(0, dtype=torch.int32)
    return StoredLayer("optimizer", "adam", (iterations, torch.tensor(LEARNING_RATE)))


def task_object(
    head: ClassificationHead, backbone: KerasObject, preprocessor: KerasObject | None
) -> KerasObject:
    return KerasObject(
        module="keras_hub.src.models.vit.vit_image_classifier",
        class_name=TASK_CLASS,
        config={
            "backbone": backbone.model_dump(),
            "preprocessor": None if preprocessor is None else preprocessor.model_dump(),
            "name": "vi_t_image_classifier",
            "num_classes": head.config.num_classes,
            "pooling": head.config.pooling,
            "activation": head.config.activation,
            "dropout": head.config.dropout,
            "intermediate_dim": head.config.intermediate_dim,
        },
        registered_name=f"keras_hub>{TASK_CLASS}",
    )


def preprocessor_object(converter: KerasObject) -> KerasObject:
    return KerasObject(
        module="keras_hub.src.models.vit.vit_image_classifier_preprocessor",
        class_name="ViTImageClassifierPreprocessor",
        config={
            "name": "vi_t_image_classifier_preprocessor",
            "trainable": True,
            "dtype": dtype_policy("float32"),
            "image_converter": converter.model_dump(),
            "config_file": preset_files.PREPROCESSOR_FILE,
        },
        registered_name="keras_hub>ViTImageClassifierPreprocessor",
    )


def converter_object(config: ImageConverterConfig) -> KerasObject:
    layer_keys = {
        "name": "vi_t_image_converter",
        "trainable": True,
        "dtype": dtype_policy("float32"),
    }
    return KerasObject(
        module="keras_hub.src.models.vit.vit_image_converter",
        class_name="ViTImageConverter",
        config=layer_keys | config.model_dump(mode="json") | {"bounding_box_format": "yxyx"},
        registered_name="keras_hub>ViTImageConverter",
    )
