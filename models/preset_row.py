"""What one row of the table of presets says: where a preset lies, what it holds and accepts.

Free of torch; knows nothing about any preset.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Config = Mapping[str, object]  # arguments of a constructor


class PresetTask(StrEnum):
    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_CLASSIFICATION = "image-classification"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a text-to-image preset accepts. Sizes in pixels."""

    default_width: int
    default_height: int
    side_multiple: int  # autoencoder 8 times patch 2
    min_side: int
    max_side: int
    max_pixels: int
    default_num_steps: int
    max_num_steps: int
    default_guidance_scale: float | None  # None: no guidance embedding
    max_guidance_scale: float | None  # None likewise
    max_sequence_length: int  # T5 tokens of a prompt; a longer one is cut
    max_images: int  # per request


@dataclass(frozen=True, slots=True)
class Preset:
    """One row of the table; of the limits those of its task are set."""

    name: str
    task: PresetTask | None  # None: a backbone without the head that a pipeline needs
    handle: str  # a URI, or the path of a directory
    license: str
    description: str
    num_parameters: int  # of the backbone
    backbone_class: str
    backbone_config: Config | None = None  # its constructor's arguments; None: the directory says
    image_limits: ImageLimits | None = None
    num_labels: int | None = None
    embedding_width: int | None = None
    max_tokens: int | None = None  # of one text to embed

    @property
    def is_bundled(self) -> bool:
        """Whether it lies in this package; all others are fetched."""
        return "://" not in self.handle
