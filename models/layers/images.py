"""Images of any mode to upright RGB: one rule for whatever a user hands in.

Knows nothing about sizes or models.
"""

import numpy as np
from PIL import ExifTags, Image, ImageOps

WHITE = (255, 255, 255)
LEVELS_16_TO_8_BIT = 257  # 65535 / 255


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image upright and into RGB, what is transparent in it into white.

    One that is so already is given back itself, no copy.
    """
    is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    upright = ImageOps.exif_transpose(image) if is_turned else image
    if upright.mode.startswith("I;16"):  # Pillow would clip 16 bits, not scale them
        levels = np.asarray(upright, dtype=np.uint16) // LEVELS_16_TO_8_BIT
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if not upright.has_transparency_data:
        return upright if upright.mode == "RGB" else upright.convert("RGB")
    with_alpha = upright.convert("RGBA")
    flat = Image.new("RGBA", with_alpha.size, WHITE)
    flat.alpha_composite(with_alpha)
    return flat.convert("RGB")
