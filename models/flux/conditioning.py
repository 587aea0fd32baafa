"""What steers the rows of a forward: each row its own part of the text features.

Knows nothing about prompts and noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from models.flux import painting

if TYPE_CHECKING:  # slow to import, and rows alone do without
    from models.flux.text_encoders import TextFeatures


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """What steers a row, in the transformer's dtype: text [T, 4096], pooled [768]."""

    text: Tensor
    pooled: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierFreeGuidance:
    """What to steer away from, at the price of a second place in the forward."""

    negative: Conditioning
    scale: float


def spread(text: TextFeatures, num_images: int, beside: Tensor) -> list[Conditioning]:
    """Give each image its features, in the dtype and on the device of a tensor.

    The features, which may have been kept in host memory, are one row for all images, one each, or
    each for as many neighbouring images. Raises ValueError for other numbers.
    """
    painting.check_rows("prompts", len(text.text), num_images)
    features = zip(text.text.to(beside), text.pooled.to(beside), strict=True)
    rows = [Conditioning(own, pooled) for own, pooled in features]
    return [rows[index * len(rows) // num_images] for index in range(num_images)]


def check_lengths(prompts: Sequence[Conditioning], negatives: Sequence[Conditioning]) -> None:
    """Raise ValueError where a prompt and a negative one cannot share a forward."""
    own, other = len(prompts[0].text), len(negatives[0].text)
    if own != other:
        raise ValueError(
            f"the negative prompt has {other} text tokens; "
            f"as many as the prompt's {own} are allowed"
        )
