"""The table of built-in presets: names, where they lie, what they accept. Free of torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from models.errors import UnknownPresetError

BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"


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
    max_guidance_scale: float
    max_images: int  # per request


@dataclass(frozen=True, slots=True)
class Preset:
    """One row of the table; exactly one of the limits is set, by task."""

    name: str
    task: PresetTask
    handle: str  # a URI, or the path of a directory
    license: str
    description: str
    backbone_class: str
    backbone_config: Mapping[str, object] | None = None  # None: the directory says it
    image_limits: ImageLimits | None = None
    num_labels: int | None = None
    embedding_width: int | None = None
    max_tokens: int | None = None  # of one text to embed


def _bundled(name: str) -> str:
    return str(BUNDLED_DIRECTORY / name)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="flux_shapes",
            task=PresetTask.TEXT_TO_IMAGE,
            handle=_bundled("flux_shapes"),
            license="apache-2.0",
            description="A small FLUX that paints one coloured shape on a coloured background.",
            backbone_class="FluxBackbone",
            image_limits=ImageLimits(
                default_width=128,
                default_height=128,
                side_multiple=16,
                min_side=64,
                max_side=256,
                max_pixels=256 * 256,
                default_num_steps=8,
                max_num_steps=50,
                default_guidance_scale=3.0,
                max_guidance_scale=10.0,
                max_images=10,
            ),
        ),
        Preset(
            name="vit_shapes",
            task=PresetTask.IMAGE_CLASSIFICATION,
            handle=_bundled("vit_shapes"),
            license="apache-2.0",
            description="A small ViT that names the colour and the shape in a picture.",
            backbone_class="ViTBackbone",
            num_labels=48,
        ),
        Preset(
            name="f_net_shapes",
            task=PresetTask.EMBEDDING,
            handle=_bundled("f_net_shapes"),
            license="apache-2.0",
            description="A small FNet that embeds captions of the shapes world.",
            backbone_class="FNetBackbone",
            embedding_width=128,
            max_tokens=512,
        ),
    )
}


def get_preset(name: str) -> Preset:
    try:
        return PRESETS[name]
    except KeyError:
        allowed = ", ".join(sorted(PRESETS))
        raise UnknownPresetError(f"preset {name!r} is not one of {allowed}") from None
