"""Pictures to the numbers that a preset was trained on: resize, scale, offset.

Computes what KerasHub's `ImageConverter` (keras_hub/src/layers/preprocessing/image_converter.py,
71453d0) computes when it is called directly, so whole grey levels after the resize.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F

from models.pictures import to_rgb


class ImageConverterConfig(BaseModel):
    """The `config` of `image_converter.json`; what is not supported must not be switched on."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image_size: tuple[int, int]  # height, width
    scale: float | tuple[float, ...] | None = None
    offset: float | tuple[float, ...] | None = None
    interpolation: Literal["bilinear"] = "bilinear"
    antialias: bool = False
    crop_to_aspect_ratio: bool = True
    pad_to_aspect_ratio: Literal[False] = False


@dataclass(frozen=True, slots=True)
class ImageConverter:
    config: ImageConverterConfig

    def __call__(self, image: Image.Image) -> Tensor:
        """Convert any picture to [H, W, 3] float32 of the preset's size."""
        pixels = rearrange(torch.from_numpy(np.array(to_rgb(image))), "H W C -> 1 C H W")
        if self.config.crop_to_aspect_ratio:
            pixels = _crop(pixels, self.config.image_size)
        resized = F.interpolate(
            pixels.float(),
            self.config.image_size,
            mode="bilinear",
            align_corners=False,
            antialias=self.config.antialias,
        )
        levels = rearrange(resized.round().clamp(0, 255), "1 C H W -> H W C")
        return levels * _channels(self.config.scale, 1.0) + _channels(self.config.offset, 0.0)


def _crop(pixels: Tensor, target: tuple[int, int]) -> Tensor:
    """Cut the middle out, in the target's aspect ratio."""
    height, width = pixels.shape[-2:]
    crop_height = min(max(int(width * target[0] / target[1]), 1), height)
    crop_width = min(max(int(height * target[1] / target[0]), 1), width)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return pixels[..., top : top + crop_height, left : left + crop_width]


def _channels(values: float | Sequence[float] | None, default: float) -> Tensor:
    return torch.tensor(default if values is None else values, dtype=torch.float32)
