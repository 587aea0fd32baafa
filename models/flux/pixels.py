"""Images to what the autoencoder takes, and what it gives to images.

As diffusers' VaeImageProcessor (0.42) computes them. Knows nothing about models.
"""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from models.layers.images import to_rgb


def to_pixels(images: Sequence[Image.Image], width: int, height: int) -> Tensor:
    """Turn images into [B, 3, H, W] float32 in -1 … 1, squeezed or stretched to the size.

    Resized with Lanczos' filter and without regard to the aspect ratio, as diffusers does; crop
    before where that is not wanted.
    """
    resized = [
        np.asarray(to_rgb(image).resize((width, height), Image.Resampling.LANCZOS))
        for image in images
    ]
    levels = rearrange(torch.from_numpy(np.stack(resized)), "B H W C -> B C H W")
    return levels.float() / 255.0 * 2.0 - 1.0


def to_levels(pixels: Tensor) -> np.ndarray:
    """Turn pixels [B, 3, H, W] of -1 … 1 into grey levels [B, H, W, 3] uint8."""
    levels = ((pixels.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    array: np.ndarray = rearrange(levels, "B C H W -> B H W C").cpu().numpy()
    return array


def to_image(levels: np.ndarray, seed: int) -> Image.Image:
    """Make an image of [H, W, 3] uint8 that says its seed."""
    image = Image.fromarray(levels)
    image.info["seed"] = seed
    return image
