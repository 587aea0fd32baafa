"""Images to numbers as transformers' `ViTImageProcessor` does: squeeze, rescale, normalise.

Source: `ViTImageProcessorPil` of transformers 5.23 (image_processing_backends.py), which resizes
with Pillow as every version before 5 did. The rule from any image to RGB is our own.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from models.vit.image_converter import (
    Factor,
    ImageConverterConfig,
    Side,
    in_mode,
    levels_of,
    require_per_channel,
)

PROCESSOR_FILE = "preprocessor_config.json"
HALF = 0.5  # of black to white
_Deviation = Annotated[float, Field(gt=0, le=1e6)]
# What KerasHub calls Pillow's filters, which always smooth when they shrink, but for NEAREST.
_INTERPOLATIONS: dict[Image.Resampling, Literal["nearest", "bilinear", "bicubic"]] = {
    Image.Resampling.NEAREST: "nearest",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}


class Size(BaseModel):
    """In pixels; other ways to say a size do not give every image the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: Side
    width: Side

    @model_validator(mode="before")
    @classmethod
    def _take_a_side_and_a_pair(cls, size: object) -> object:
        match size:
            case int() as side:
                return {"height": side, "width": side}
            case [height, width]:
                return {"height": height, "width": width}
            case dict():  # some versions wrote every key, those that are not set as null
                return {key: value for key, value in size.items() if value is not None}
            case _:
                return size


class ProcessorConfig(BaseModel):
    """`preprocessor_config.json`, with transformers' defaults; `do_convert_rgb` is always true."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    do_resize: bool = True
    size: Size = Size(height=224, width=224)
    resample: Image.Resampling = Image.Resampling.BILINEAR
    do_rescale: bool = True
    rescale_factor: Factor = 1 / 255
    do_normalize: bool = True
    image_mean: Factor | tuple[Factor, ...] = (HALF,) * 3
    image_std: _Deviation | tuple[_Deviation, ...] = (HALF,) * 3
    image_processor_type: Literal[
        "ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor"
    ] = "ViTImageProcessor"
    feature_extractor_type: Literal["ViTFeatureExtractor"] | None = None  # before version 4.25
    do_center_crop: Literal[False] = False  # these two are not supported: only off is allowed
    do_pad: Literal[False] = False

    @model_validator(mode="before")
    @classmethod
    def _take_null_as_the_default(cls, config: object) -> object:
        if not isinstance(config, dict):
            return config
        return {key: value for key, value in config.items() if value is not None}


@dataclass(frozen=True, slots=True)
class TransformersConverter:
    config: ProcessorConfig
    num_channels: int = 3

    def __post_init__(self) -> None:
        """Raise ValueError for other numbers of means than there are channels."""
        if self.config.do_normalize:
            require_per_channel("image_mean", self.config.image_mean, self.num_channels)
            require_per_channel("image_std", self.config.image_std, self.num_channels)

    def __call__(self, image: Image.Image) -> Tensor:
        """Convert any image to [H, W, C] float32."""
        upright, size = in_mode(image, self.num_channels), self.config.size
        if self.config.do_resize:
            upright = upright.resize((size.width, size.height), self.config.resample)
        levels = levels_of(upright)
        pixels = levels.astype(np.float32)
        if self.config.do_rescale:  # in float64, as transformers does
            pixels = (levels.astype(np.float64) * self.config.rescale_factor).astype(np.float32)
        if self.config.do_normalize:
            mean = np.array(self.config.image_mean, dtype=np.float32)
            deviation = np.array(self.config.image_std, dtype=np.float32)
            pixels = (pixels - mean) / deviation
        return torch.from_numpy(pixels)

    def as_keras(self) -> ImageConverterConfig:
        """Give KerasHub's nearest converter: the same to one grey level, but for BICUBIC.

        There Pillow cuts off what overshoots black and white after each of its two passes, KerasHub
        after both.

        Raises ValueError for a filter that KerasHub has not.
        """
        config = self.config
        if config.resample not in _INTERPOLATIONS:
            allowed = ", ".join(filter_.name for filter_ in _INTERPOLATIONS)
            raise ValueError(f"KerasHub has no resampling {config.resample.name}, only {allowed}")
        factor = config.rescale_factor if config.do_rescale else 1.0
        mean = np.array(config.image_mean if config.do_normalize else 0.0)
        deviation = np.array(config.image_std if config.do_normalize else 1.0)
        return ImageConverterConfig(
            image_size=(config.size.height, config.size.width) if config.do_resize else None,
            scale=(factor / deviation).tolist(),
            offset=(-mean / deviation).tolist(),
            interpolation=_INTERPOLATIONS[config.resample],
            antialias=config.resample != Image.Resampling.NEAREST,
            crop_to_aspect_ratio=False,
        )
