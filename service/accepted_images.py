"""What `Accept` says of an answer with images: JSON, or one image itself.

https://www.rfc-editor.org/rfc/rfc9110#field.accept
"""

import re
from collections.abc import Mapping, Sequence
from typing import get_args

from fastapi import Request

from service.errors import NotAcceptableError, shown
from service.schemas.image_fields import ImageFields
from service.sse import MEDIA_TYPE
from worker.contract.jobs import OutputFormat

_JSON = "application/json"
_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{1,3})?|1(?:\.0{1,3})?)", re.IGNORECASE)


def wanted_format(body: ImageFields, request: Request) -> OutputFormat | None:
    """The format of an image that is to be the whole answer; None where that is JSON, or a stream.

    It is where an image is liked better than JSON. Raises NotAcceptableError where images are liked
    but not JSON, and this request has another answer.
    """
    weights = _weights(request.headers.getlist("accept"))
    json_weight = _weight_of(_JSON, weights)
    formats = _formats(body)
    liked = {name: _weight_of(f"image/{name}", weights) for name in formats}
    best = max(formats, key=lambda name: liked[name], default=None)
    if best is not None and liked[best] > json_weight:
        return best
    likes_images = any(w > 0 and name.startswith(("image/", "*/")) for name, w in weights.items())
    if json_weight > 0 or not likes_images:
        return None
    other = MEDIA_TYPE if body.stream else _JSON
    allowed = ", ".join([*(f"image/{name}" for name in formats), other])
    got = shown(request.headers.get("accept"))
    raise NotAcceptableError(f"Accept: got {got}; allowed for this request: {allowed}")


def _formats(body: ImageFields) -> Sequence[OutputFormat]:
    """Of the image that could be the whole answer; none where that needs JSON around it."""
    if body.stream or body.response_format is not None or body.n not in (None, 1):
        return ()
    return get_args(OutputFormat) if body.output_format is None else (body.output_format,)


def _weight_of(media_type: str, weights: Mapping[str, float]) -> float:
    """The most specific range counts: `*/*` says nothing of a type that is named."""
    ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    return next((weights[name] for name in ranges if name in weights), 0.0)


def _weights(accept: Sequence[str]) -> Mapping[str, float]:
    """How much each range of media types is liked, from 0 to 1; in the order of the header."""
    weights = {}
    for item in ",".join(accept).split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        found = [match for match in map(_WEIGHT.fullmatch, parameters) if match is not None]
        weights[name.lower()] = float(found[0][1]) if found else 1.0
    return weights
