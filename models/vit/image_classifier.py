"""Pictures in, one logit per label out: preprocessing, backbone, head and label names of a preset.

The task of KerasHub's `ViTImageClassifier` (keras_hub/src/models/vit/vit_image_classifier.py,
71453d0). Knows nothing about jobs, nor how a picture was encoded.
"""

from pathlib import Path
from typing import Literal, Self

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from models import preset_files
from models.errors import PresetFileError
from models.preset_files import KerasObject
from models.vit.backbone import ViTBackbone
from models.vit.image_converter import ImageConverter, ImageConverterConfig


class TaskConfig(BaseModel):
    """The `config` of `task.json`, without the nested backbone and preprocessor."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    num_classes: int
    pooling: Literal["token", "gap"] = "token"  # the first token, or the mean over all
    intermediate_dim: int | None = None
    activation: Literal[None, "linear"] = None  # others would not give logits


class ClassificationHead(nn.Module):
    """Pool, then one or two dense layers."""

    def __init__(self, width: int, config: TaskConfig) -> None:
        super().__init__()
        self.pooling = config.pooling
        inner = config.intermediate_dim
        self.pre_logits = None if inner is None else nn.Linear(width, inner)
        self.predictions = nn.Linear(inner or width, config.num_classes)

    def forward(self, sequence_output: Tensor) -> Tensor:
        """[B, L, D] to logits [B, K]."""
        is_token = self.pooling == "token"
        pooled = sequence_output[:, 0] if is_token else sequence_output.mean(dim=1)
        if self.pre_logits is not None:
            pooled = torch.tanh(self.pre_logits(pooled))
        logits: Tensor = self.predictions(pooled)
        return logits


class ImageClassifier:
    """Everything that one ViT preset needs to name what is in a picture, on one device."""

    def __init__(
        self,
        backbone: ViTBackbone,
        head: ClassificationHead,
        converter: ImageConverter,
        labels: tuple[str, ...],
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.converter = converter
        self.labels = labels

    @classmethod
    def from_preset(
        cls, preset: str | Path, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> Self:
        """Load a preset with a classifier; `dtype` None means float32.

        Raises UnknownPresetError, PresetFileError for a missing or malformed file, WeightsError
        for weights that do not fit, PresetError for a preset of another family.
        """
        directory = preset_files.find_directory(preset)
        backbone = ViTBackbone.from_preset(directory, dtype=dtype, trainable=False)
        config = preset_files.read_config(directory, preset_files.TASK_FILE, TaskConfig)
        labels = preset_files.read_labels(directory)
        if len(labels) != config.num_classes:
            raise PresetFileError(
                f"{directory} names {len(labels)} labels for {config.num_classes} classes"
            )
        with torch.device("meta"):
            head = ClassificationHead(backbone.hidden_dim, config)
        preset_files.load_weights(
            head, directory / preset_files.TASK_WEIGHTS_FILE, backbone.layer_norm.weight.dtype
        )
        converter = preset_files.read_config(
            directory, preset_files.IMAGE_CONVERTER_FILE, ImageConverterConfig
        )
        return cls(
            backbone.to(device),
            head.to(device).eval().requires_grad_(False),
            ImageConverter(converter),
            labels,
        )

    def preprocess(self, image: Image.Image) -> Tensor:
        """Turn any picture upright, into RGB on white, and into the preset's [H, W, 3] float32."""
        return self.converter(image)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Score preprocessed pictures: [B, H, W, 3] to [B, K] float32, on their device."""
        parameter = self.head.predictions.weight
        sequence_output = self.backbone(images=images.to(parameter.device, parameter.dtype))
        logits: Tensor = self.head(sequence_output).float()
        return logits

    def save_to_preset(self, preset_dir: str | Path) -> None:
        """Write everything that `from_preset` reads, and KerasHub's nested forms of it."""
        directory = Path(preset_dir)
        self.backbone.save_to_preset(directory)
        preset_files.save_weights(self.head, directory / preset_files.TASK_WEIGHTS_FILE)
        preset_files.write_json(directory, preset_files.LABELS_FILE, list(self.labels))
        converter = _converter_object(self.converter.config)
        preprocessor = _preprocessor_object(converter)
        preset_files.write_object(directory, preset_files.IMAGE_CONVERTER_FILE, converter)
        preset_files.write_object(directory, preset_files.PREPROCESSOR_FILE, preprocessor)
        preset_files.write_object(
            directory, preset_files.TASK_FILE, self._task_object(preprocessor)
        )

    def _task_object(self, preprocessor: KerasObject) -> KerasObject:
        inner = self.head.pre_logits
        return KerasObject(
            module="keras_hub.src.models.vit.vit_image_classifier",
            class_name="ViTImageClassifier",
            config={
                "backbone": self.backbone.to_keras_object().model_dump(),
                "preprocessor": preprocessor.model_dump(),
                "name": "vi_t_image_classifier",
                "num_classes": len(self.labels),
                "pooling": self.head.pooling,
                "activation": None,
                "dropout": 0.0,
                "intermediate_dim": None if inner is None else inner.out_features,
            },
            registered_name="keras_hub>ViTImageClassifier",
        )


def _preprocessor_object(converter: KerasObject) -> KerasObject:
    return KerasObject(
        module="keras_hub.src.models.vit.vit_image_classifier_preprocessor",
        class_name="ViTImageClassifierPreprocessor",
        config={
            "name": "vi_t_image_classifier_preprocessor",
            "trainable": True,
            "dtype": preset_files.dtype_policy("float32"),
            "image_converter": converter.model_dump(),
            "config_file": preset_files.PREPROCESSOR_FILE,
        },
        registered_name="keras_hub>ViTImageClassifierPreprocessor",
    )


def _converter_object(config: ImageConverterConfig) -> KerasObject:
    layer_keys = {
        "name": "vi_t_image_converter",
        "trainable": True,
        "dtype": preset_files.dtype_policy("float32"),
    }
    return KerasObject(
        module="keras_hub.src.models.vit.vit_image_converter",
        class_name="ViTImageConverter",
        config=layer_keys | config.model_dump(mode="json"),
        registered_name="keras_hub>ViTImageConverter",
    )
