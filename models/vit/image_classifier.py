"""Images in, one logit per label out: preprocessing, backbone, head and label names of a preset.

The task of KerasHub's `ViTImageClassifier` (keras_hub/src/models/vit/vit_image_classifier.py,
0.32.0). Knows nothing about jobs, nor how an image was encoded.
"""

from pathlib import Path
from typing import Self

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from models.backbone import WeightsFormat
from models.checkpoints import preset_files
from models.checkpoints.preset_files import KerasObject
from models.errors import PresetError, PresetFileError
from models.execution.apply import Subject, apply
from models.execution.execution import Execution
from models.keras.task_heads import load_head
from models.presets.handles import Part, fetch
from models.vit.backbone import ViTBackbone
from models.vit.classification_head import ClassificationHead
from models.vit.formats import classifier_writing, stored_classifier
from models.vit.formats.image_converter_transformers import (
    PROCESSOR_FILE,
    ProcessorConfig,
    TransformersConverter,
)
from models.vit.image_converter import MODES, ImageConverter, ImageConverterConfig

Converter = ImageConverter | TransformersConverter


class ImageClassifier:
    """Everything that one ViT preset needs to name what is in an image, on one device."""

    def __init__(
        self,
        backbone: ViTBackbone,
        head: ClassificationHead,
        converter: Converter | None,
        labels: tuple[str, ...],
    ) -> None:
        """Compose; `converter` None is for those who only have tensors.

        Raises ValueError for a converter that does not give the backbone's image shape, and for
        another number of labels than the head has classes.
        """
        if len(labels) != head.config.num_classes:
            raise ValueError(f"{len(labels)} labels for {head.config.num_classes} classes")
        if converter is not None:
            _check_shape(converter, _image_shape(backbone))
        self.backbone = backbone
        self.head = head
        self.converter = converter
        self.labels = labels

    @classmethod
    def from_preset(
        cls, preset: str | Path, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> Self:
        """Load a preset with a classifier, KerasHub's or transformers'; `dtype` None means float32.

        Labels are those of `labels.json`, else transformers' `id2label`, else the ImageNet names
        for 1,000 classes, else "class 0" and so on.

        Raises UnknownPresetError, DownloadError, PresetFileError for a missing or malformed file
        and for a preset without a classifier, WeightsError for weights that do not fit,
        PresetError for a preset of another family.
        """
        directory = fetch(preset, Part.PIPELINE)
        with torch.device(device):
            backbone = ViTBackbone.from_preset(directory, dtype=dtype)
        stored = stored_classifier.read_stored(directory)
        head = load_head(
            lambda: ClassificationHead(backbone.hidden_dim, stored.task),
            stored.head,
            backbone.layer_norm.weight,
        )
        try:
            converter = _converter(stored.converter, backbone)
            return cls(backbone, head, converter, stored.labels)
        except ValueError as error:
            raise PresetFileError(f"{directory} does not fit together: {error}") from error

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """What holds the parameters."""
        return (self.backbone, self.head)

    @property
    def features_per_row(self) -> int:
        """Count the features of an image between two layers: its tokens times the width."""
        return self.backbone.patching.position_embedding.weight.numel()

    def to(self, device: str) -> None:
        """Move to another device, and compute there."""
        for module in self.modules:
            module.to(device)

    def pack(self, dtype: torch.dtype) -> None:
        """Lay the weights out for the CPU's products in this dtype: see the backbone's."""
        self.backbone.pack(dtype)

    def execute(self, execution: Execution) -> None:
        """Run by these levers from now on; those that cannot be had are logged and left out."""
        backbone, device = self.backbone, self.head.predictions.weight.device
        shape = _image_shape(backbone)
        subject = Subject(
            backbone, "forward", lambda n: self.logits(torch.zeros(n, *shape)), device
        )
        apply(subject, execution)

    def preprocess(self, image: Image.Image) -> Tensor:
        """Turn any image upright, onto white, and into the preset's [H, W, C] float32.

        Raises PresetError where the preset says nothing about preprocessing.
        """
        if self.converter is None:
            raise PresetError(
                f"the preset has neither {preset_files.IMAGE_CONVERTER_FILE} nor {PROCESSOR_FILE}: "
                "it takes tensors, no images"
            )
        return self.converter(image)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Score preprocessed images: [B, H, W, C] to [B, K] float32, on their device.

        Scores before any activation, also where the preset's `activation` is softmax.
        """
        parameter = self.head.predictions.weight
        placed = images.to(parameter.device, parameter.dtype)
        if self.backbone.data_format == "channels_first":
            placed = rearrange(placed, "B H W C -> B C H W")
        logits: Tensor = self.head(self.backbone(images=placed)).float()
        return logits

    def save_to_preset(
        self,
        preset_dir: str | Path,
        max_shard_size: float | None = 10,
        weights_format: WeightsFormat = "h5",
    ) -> None:
        """Write everything that `from_preset` reads, in KerasHub's format; other files stay.

        `max_shard_size` and `weights_format` are those of `Backbone.save_to_preset`. KerasHub has
        no file for the labels.

        Where images are prepared as transformers does, KerasHub gets its nearest form of that,
        within one grey level where the filter is bilinear; `preprocessor_config.json` is exact.

        Raises ValueError for a resampling filter that KerasHub has not, for another format, and in
        H5 for a parameter larger than a shard.
        """
        directory = Path(preset_dir)
        preprocessor = (
            None if self.converter is None else _write_converter(directory, self.converter)
        )
        self.backbone.save_to_preset(directory, max_shard_size, weights_format)
        classifier_writing.write_head(directory, self.head, weights_format)
        preset_files.write_json(directory, preset_files.LABELS_FILE, list(self.labels))
        backbone = self.backbone.to_keras_object()
        task = classifier_writing.task_object(self.head, backbone, preprocessor)
        preset_files.write_object(directory, preset_files.TASK_FILE, task)


def _write_converter(directory: Path, converter: Converter) -> KerasObject:
    """Write every form of a converter; give the preprocessor that holds it."""
    if isinstance(converter, ImageConverter):
        config = converter.config
        (directory / PROCESSOR_FILE).unlink(missing_ok=True)  # it would win
    else:
        config = converter.as_keras()
        processor = converter.config.model_dump(mode="json", exclude_none=True)
        preset_files.write_json(directory, PROCESSOR_FILE, processor)
    image_converter = classifier_writing.converter_object(config)
    preprocessor = classifier_writing.preprocessor_object(image_converter)
    preset_files.write_object(directory, preset_files.IMAGE_CONVERTER_FILE, image_converter)
    preset_files.write_object(directory, preset_files.PREPROCESSOR_FILE, preprocessor)
    return preprocessor


def _converter(
    config: ImageConverterConfig | ProcessorConfig | None, backbone: ViTBackbone
) -> Converter | None:
    """Raises ValueError for a backbone whose images are neither grey nor RGB."""
    if config is None:
        return None
    num_channels = _image_shape(backbone)[-1]
    if num_channels not in MODES:
        raise ValueError(f"images have 1 or 3 channels, the backbone takes {num_channels}")
    if isinstance(config, ImageConverterConfig):
        return ImageConverter(config, num_channels)
    return TransformersConverter(config, num_channels)


def _image_shape(backbone: ViTBackbone) -> tuple[int, ...]:
    """Give height, width and channels."""
    shape = tuple(side for side in backbone.image_shape if side is not None)
    return shape if backbone.data_format == "channels_last" else (*shape[1:], shape[0])


def _check_shape(converter: Converter, wanted: tuple[int, ...]) -> None:
    height, width, _ = wanted
    given = tuple(converter(Image.new("L", (width, height))).shape)
    if given != wanted:
        raise ValueError(f"images are prepared as {list(given)}, the backbone takes {list(wanted)}")
