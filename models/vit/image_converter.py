"""Images to the numbers that a KerasHub preset expects: crop or pad, resize, scale, offset.

Computes what KerasHub's `ImageConverter` (keras_hub/src/layers/preprocessing/image_converter.py,
0.32.0, on its torch backend) computes when it is called directly with integers, so whole grey
levels after the resize.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from torch import Tensor
from torch.nn import functional as F

from models.errors import ImageDecodeError
from models.layers.images import to_rgb

Levels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
BAND_PIXELS = 1 << 17  # 1.5 MB of float32 RGB: what a core's cache holds
MAX_INTERMEDIATE_PIXELS = 1 << 26  # 800 MB of float32 RGB, for an image of 8192x1 made a square
MODES = {1: "L", 3: "RGB"}  # by the number of channels

Side = Annotated[int, Field(ge=1, le=8192)]  # pixels: 800 MB of float32 RGB, as above
Factor = Annotated[float, Field(ge=-1e6, le=1e6)]  # of a grey level, or beside it; no NaN
PerChannel = float | tuple[float, ...]
_FLOATS = TypeAdapter(PerChannel)


class ImageConverterConfig(BaseModel):
    """The `config` of `image_converter.json`, in its present form or an older one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image_size: tuple[Side, Side] | None = None  # height, width; None: images keep their size
    scale: Factor | tuple[Factor, ...] | None = None
    offset: Factor | tuple[Factor, ...] | None = None
    interpolation: Literal["bilinear", "nearest", "bicubic"] = "bilinear"
    antialias: bool = False
    crop_to_aspect_ratio: bool = True
    pad_to_aspect_ratio: bool = False

    @model_validator(mode="before")
    @classmethod
    def _take_older_forms(cls, config: object) -> object:
        if not isinstance(config, dict):
            return config
        present = dict(config)
        if "height" in config and "width" in config:
            present["image_size"] = (config["height"], config["width"])
        scale, offset = _floats(config.get("scale"), 1.0), _floats(config.get("offset"), 0.0)
        if "mean" in config and "variance" in config:
            mean, variance = _floats(config["mean"], 0.0), _floats(config["variance"], 1.0)
            present |= _normalised(scale, -mean, np.sqrt(variance))
        elif config.get("norm_mean") or config.get("norm_std"):  # keras-hub 0.19 to 0.21
            mean = _floats(config.get("norm_mean"), 0.0)
            deviation = _floats(config.get("norm_std"), 1.0)
            present |= _normalised(scale, offset - mean, deviation)
        return present

    @model_validator(mode="after")
    def _check_aspect_ratio(self) -> Self:
        if self.crop_to_aspect_ratio and self.pad_to_aspect_ratio:
            raise ValueError("only one of crop_to_aspect_ratio and pad_to_aspect_ratio can be true")
        return self


@dataclass(frozen=True, slots=True)
class ImageConverter:
    config: ImageConverterConfig
    num_channels: int = 3

    def __post_init__(self) -> None:
        """Raise ValueError for other numbers of factors than there are channels."""
        require_per_channel("scale", self.config.scale, self.num_channels)
        require_per_channel("offset", self.config.offset, self.num_channels)

    def __call__(self, image: Image.Image) -> Tensor:
        """Convert any image to [H, W, C] float32 of the preset's size.

        Raises ImageDecodeError for an image that becomes too large on its way there.
        """
        upright, size = in_mode(image, self.num_channels), self.config.image_size
        levels = _floats_of(upright) if size is None else self._resized(upright, size)
        return levels * _channels(self.config.scale, 1.0) + _channels(self.config.offset, 0.0)

    def _resized(self, image: Image.Image, size: tuple[int, int]) -> Tensor:
        """Give whole grey levels [H, W, C] of another size."""
        if self.config.pad_to_aspect_ratio:
            image = _padded(image, size)
        box = _Box(0, 0, image.width, image.height)
        if self.config.crop_to_aspect_ratio:
            box = _middle(image, size)
        resized = self._interpolated(self._pixels(image, box, size[1]), size)
        return rearrange(resized.round().clamp(0, 255), "1 C H W -> H W C")

    def _pixels(self, image: Image.Image, box: "_Box", new_width: int) -> Tensor:
        """Give what is within a box, [1, C, H, W], band of rows by band.

        With antialias one axis is resized after the other, the width first: a band has its new
        width at once, to the same bits, as all of a photograph in float32 is 12 bytes a pixel.
        """
        narrows = self.config.antialias and self.config.interpolation != "nearest"
        left, top, right, bottom = box
        width = new_width if narrows else right - left
        rows = max(1, BAND_PIXELS // max(right - left, width))
        if rows >= bottom - top:
            return _pixels_of(image if box == (0, 0, *image.size) else image.crop(box))
        if narrows:
            _check_pixels(image, width, bottom - top, f"stretched to a width of {width}")
        shape = (1, self.num_channels, bottom - top, width)
        pixels = torch.empty(shape, memory_format=torch.channels_last)  # else it would be copied
        for y in range(top, bottom, rows):
            band = _pixels_of(image.crop((left, y, right, min(y + rows, bottom))))
            height = band.shape[2]
            into = pixels[:, :, y - top : y - top + height]
            into.copy_(self._interpolated(band, (height, width)) if narrows else band)
        return pixels

    def _interpolated(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, C, H, W] of another size."""
        if self.config.interpolation == "nearest":
            return F.interpolate(pixels, size, mode="nearest-exact")
        return F.interpolate(
            pixels,
            size,
            mode=self.config.interpolation,
            align_corners=False,
            antialias=self.config.antialias,
        )


def require_per_channel(name: str, values: PerChannel | None, num_channels: int) -> None:
    """Raise ValueError for other than one number, or one for each channel."""
    if isinstance(values, tuple) and len(values) not in (1, num_channels):
        raise ValueError(f"{name} has {len(values)} numbers, the backbone {num_channels} channels")


def in_mode(image: Image.Image, num_channels: int) -> Image.Image:
    """Turn any image upright, onto white, and into grey or RGB by the number of channels."""
    rgb, mode = to_rgb(image), MODES[num_channels]
    return rgb if rgb.mode == mode else rgb.convert(mode)


def levels_of(image: Image.Image) -> Levels:
    """Give the levels of a grey or RGB image: [H, W, C], not to be written to."""
    levels = np.asarray(image)
    return levels if levels.ndim == 3 else levels[..., None]


def _floats_of(image: Image.Image) -> Tensor:
    return torch.from_numpy(levels_of(image).astype(np.float32))


def _pixels_of(image: Image.Image) -> Tensor:
    return rearrange(_floats_of(image), "H W C -> 1 C H W")


class _Box(NamedTuple):
    """As Pillow has it."""

    left: int
    top: int
    right: int
    bottom: int


def _middle(image: Image.Image, target: tuple[int, int]) -> _Box:
    """Give the box of the middle, in the target's aspect ratio of height and width."""
    width, height = image.size
    crop_height = min(max(int(width * target[0] / target[1]), 1), height)
    crop_width = min(max(int(height * target[1] / target[0]), 1), width)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return _Box(left, top, left + crop_width, top + crop_height)


def _padded(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """Put black around, as much on both sides, up to the target's aspect ratio."""
    width, height = image.size
    rows = max(int(width * target[0] / target[1]) - height, 0) // 2
    columns = max(int(height * target[1] / target[0]) - width, 0) // 2
    how = f"padded to the aspect ratio {target[1]}:{target[0]}"
    _check_pixels(image, width + 2 * columns, height + 2 * rows, how)
    return ImageOps.expand(image, (columns, rows), fill=0)  # with what KerasHub pads: black


def _check_pixels(image: Image.Image, width: int, height: int, how: str) -> None:
    """Raise ImageDecodeError for an image that becomes too large on its way to another size."""
    if (num_pixels := width * height) > MAX_INTERMEDIATE_PIXELS:
        raise ImageDecodeError(
            f"an image of {image.width}x{image.height} has {num_pixels} pixels when it is {how}; "
            f"at most {MAX_INTERMEDIATE_PIXELS} are allowed"
        )


def _floats(values: object, default: float) -> Floats:
    return np.asarray(default if values is None else _FLOATS.validate_python(values))


def _normalised(scale: Floats, offset: Floats, deviation: Floats) -> dict[str, float | list[float]]:
    return {"scale": (scale / deviation).tolist(), "offset": (offset / deviation).tolist()}


def _channels(values: float | Sequence[float] | None, default: float) -> Tensor:
    return torch.tensor(default if values is None else values, dtype=torch.float32)
