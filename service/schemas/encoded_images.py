"""Images inside a request: data URIs, base64 or files, to bytes that a worker would look at.

Looks at the first bytes to refuse what no worker would decode; decoding is theirs.
"""

import base64
import binascii
import re
import string
from dataclasses import dataclass

from service.errors import RequestError, shown

# What an image is its first bytes say, whichever of these its body is called.
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")

_DATA_URI = re.compile(r"data:[^,]{0,100},", re.IGNORECASE)
_FORMATS = "PNG, JPEG or WebP"
_BLANKS = string.whitespace.encode()  # `base64` on the command line breaks lines


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """One encoded image, and the field that brought it."""

    param: str
    content: bytes


def from_text(param: str, text: str) -> ImageBytes:
    """From a data URI or base64; raises RequestError for anything else."""
    if text[:8].lower().startswith(("http://", "https://")):
        message = f"{param}: got {shown(text)}; URLs are not fetched; allowed: data URI or base64"
        raise RequestError(param, message, "unsupported_value")
    uri = _DATA_URI.match(text)
    if uri is not None and not uri[0].lower().endswith(";base64,"):
        raise RequestError(param, f"{param}: got {shown(text)}; allowed: a data URI in base64")
    encoded = text if uri is None else text[uri.end() :]
    try:
        # not `split`: of text that is half blanks it makes millions of strings
        packed = encoded.encode("ascii", "replace").translate(None, _BLANKS)
        content = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"{param}: not base64 ({error}); got {shown(text)}"
        raise RequestError(param, message, "invalid_image") from error
    return ImageBytes(param, content)


def checked(image: ImageBytes, max_bytes: int) -> bytes:
    """The content, if its size and its first bytes are those of an image that is allowed."""
    content, param = image.content, image.param
    if len(content) > max_bytes:
        message = f"{param}: got {len(content)} bytes; allowed: at most {max_bytes}"
        raise RequestError(param, message, "image_too_large")
    if not _is_known(content):
        got = shown(content[:8].hex(" ")) if content else "nothing"
        message = f"{param}: starts with {got}; allowed: {_FORMATS}"
        raise RequestError(param, message, "invalid_image")
    return content


def _is_known(content: bytes) -> bool:
    return content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (
        content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    )
