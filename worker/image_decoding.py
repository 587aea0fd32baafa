"""Bytes of strangers to an image: base64, PNG, JPEG or WebP, limits before any decoding."""

import base64
import binascii
import io

from PIL import Image, ImageOps

from models.errors import ImageDecodeError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 40_000_000  # 160 MB as RGBA: room for any camera, none for a bomb


def from_base64(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageDecodeError("the image is not valid base64") from error


def decode_image(content: bytes) -> Image.Image:
    """Decode the first frame, upright; ImageDecodeError for whatever is not such an image."""
    try:
        return _decode(content)
    except (ImageDecodeError, MemoryError):  # the latter is no fault of the image
        raise
    except Image.DecompressionBombError as error:  # Pillow refuses before it tells the size
        raise ImageDecodeError(f"the image has more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files
        allowed = ", ".join(FORMATS)
        raise ImageDecodeError(f"the image cannot be decoded as one of {allowed}") from error


def _decode(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size  # from the header; no pixel is decoded yet
        if width * height > MAX_PIXELS:
            raise ImageDecodeError(
                f"the image has {width}x{height} pixels; at most {MAX_PIXELS} are allowed"
            )
        ImageOps.exif_transpose(image, in_place=True)  # loads the pixels
        # it needs its file no more; WebP's has a decoder, with two more images of its size
        return image.copy() if image.format == "WEBP" else image
