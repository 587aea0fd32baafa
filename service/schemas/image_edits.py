"""Bodies of `POST /v1/images/edits` and `/v1/images/variations`: both start from an image.

Edits come as forms from OpenAI's clients, or as JSON with `images`. Here each is image-to-image of
one image; of `image` and `images` the first is for people and forms, the second OpenAI's JSON.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from service.errors import RequestError
from service.schemas.fields import RequestBody, Text, Unsupported
from service.schemas.image_fields import (
    DEFAULT_STRENGTH,
    MAX_PROMPT_CHARACTERS,
    EncodedImage,
    ImageFields,
    Strength,
    only_one,
)

_FAITHFUL_STRENGTH = 0.4  # of `input_fidelity`: forms and faces stay, colours may change
_IMAGE = (
    "a data URI or base64 of PNG, JPEG or WebP, in a form also a file; it is stretched to `size`, "
    "whose default it does not change"
)
_STRENGTH = "how much of the steps is run, and how little of the image is left; null: "


class ImageSource(RequestBody):
    """OpenAI's way to name an image; there are no stored files to name."""

    image_url: Text | None = Field(None, description="a data URI; URLs are not fetched")
    file_id: Unsupported = None


class ImageEdit(ImageFields):
    """What to make of an image."""

    STRUCTURED: ClassVar[tuple[str, ...]] = (*ImageFields.STRUCTURED, "images")

    prompt: Text = Field(
        min_length=1, max_length=MAX_PROMPT_CHARACTERS, description="what it is to show then"
    )
    image: EncodedImage | None = Field(None, description=f"this or `images` is required: {_IMAGE}")
    images: Annotated[list[ImageSource], BeforeValidator(only_one)] | None = Field(
        None, description="OpenAI's form of `image`: an array of one"
    )
    strength: Strength | None = Field(
        None, description=f"{_STRENGTH}{DEFAULT_STRENGTH:g}, or as `input_fidelity` says"
    )
    input_fidelity: Literal["high", "low"] | None = Field(
        None,
        description=f"high: a `strength` of {_FAITHFUL_STRENGTH:g}, where that is not given; "
        f"low: {DEFAULT_STRENGTH:g}",
    )
    mask: Unsupported = None
    markup: Unsupported = None

    @property
    def prompt_text(self) -> str:
        return self.prompt

    @property
    def start(self) -> tuple[str, str | bytes]:
        if self.image is not None:
            return "image", self.image
        assert self.images is not None, "this is a bug: an edit without an image was let in"
        return "images[0].image_url", self.images[0].image_url or ""

    @property
    def start_strength(self) -> float:
        if self.strength is not None:
            return self.strength
        return _FAITHFUL_STRENGTH if self.input_fidelity == "high" else DEFAULT_STRENGTH

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if self.image is None and self.images is None:
            raise RequestError(
                "image", "image: missing; it is required", "missing_required_parameter"
            )
        if self.image is not None and self.images is not None:
            raise RequestError("images", "images: the same as image, which is given too")
        if self.images is not None and self.images[0].image_url is None:
            param = "images[0].image_url"
            message = f"{param}: missing; it is required"
            raise RequestError(param, message, "missing_required_parameter")
        return self


class ImageVariation(ImageFields):
    """What to paint again, without words."""

    image: EncodedImage = Field(description=_IMAGE)
    strength: Strength | None = Field(None, description=f"{_STRENGTH}{DEFAULT_STRENGTH:g}")

    @property
    def start(self) -> tuple[str, str | bytes]:
        return "image", self.image

    @property
    def start_strength(self) -> float:
        return DEFAULT_STRENGTH if self.strength is None else self.strength
