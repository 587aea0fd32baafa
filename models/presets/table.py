"""The table of built-in presets: names, where they lie and what they hold. Free of torch.

ViT and FNet presets are KerasHub's (keras_hub/src/models/{vit,f_net}/*_presets.py, 71453d0), with
its names, handles and parameter counts; Flux presets are the originals of black-forest-labs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from models.errors import UnknownPresetError

Config = Mapping[str, object]  # arguments of a constructor


class PresetTask(StrEnum):
    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_CLASSIFICATION = "image-classification"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class Preset:
    """One row of the table."""

    name: str
    task: PresetTask | None  # None: a backbone without the head that a pipeline needs
    handle: str  # a URI, or the path of a directory
    license: str
    description: str
    num_parameters: int  # of the backbone
    backbone_class: str
    backbone_config: Config | None = None  # its constructor's arguments; None: the directory says

    @property
    def is_bundled(self) -> bool:
        """Whether it lies in this package; all others are fetched."""
        return "://" not in self.handle


# The backbone classes, and where they are defined: imported when a preset asks for one.
FAMILIES = {
    "FNetBackbone": "models.fnet.backbone",
    "FluxBackbone": "models.flux.backbone",
    "ViTBackbone": "models.vit.backbone",
}

BUNDLED_DIRECTORY = Path(__file__).parents[1] / "bundled"


def _bundled(name: str) -> str:
    return str(BUNDLED_DIRECTORY / name)


_BUNDLED = (
    Preset(
        name="flux_shapes",
        task=PresetTask.TEXT_TO_IMAGE,
        handle=_bundled("flux_shapes"),
        license="apache-2.0",
        description="A small FLUX that paints one to three coloured shapes on a plain background.",
        num_parameters=7_466_176,
        backbone_class="FluxBackbone",
    ),
    Preset(
        name="vit_shapes",
        task=PresetTask.IMAGE_CLASSIFICATION,
        handle=_bundled("vit_shapes"),
        license="apache-2.0",
        description="A small ViT that names the colour and the shape in an image.",
        num_parameters=327_648,
        backbone_class="ViTBackbone",
    ),
    Preset(
        name="f_net_shapes",
        task=PresetTask.EMBEDDING,
        handle=_bundled("f_net_shapes"),
        license="apache-2.0",
        description="A small FNet that embeds captions of the shapes world.",
        num_parameters=518_656,
        backbone_class="FNetBackbone",
    ),
)


def _flux_config(guidance_embed: bool) -> Config:
    """Configure FLUX.1 as published (src/flux/util.py of black-forest-labs/flux, 802fb47)."""
    return {
        "input_channels": 64,
        "hidden_size": 3072,
        "mlp_ratio": 4.0,
        "num_heads": 24,
        "depth": 19,
        "depth_single_blocks": 38,
        "axes_dim": (16, 56, 56),
        "theta": 10_000,
        "use_bias": True,
        "guidance_embed": guidance_embed,
        "gelu_approximate": "tanh",
    }


_FLUX = (
    Preset(
        name="flux_schnell",
        task=PresetTask.TEXT_TO_IMAGE,
        handle="hf://black-forest-labs/FLUX.1-schnell",
        license="apache-2.0",
        description="FLUX.1 [schnell]: paints anything in four steps.",
        num_parameters=11_891_178_560,
        backbone_class="FluxBackbone",
        backbone_config=_flux_config(guidance_embed=False),
    ),
    Preset(
        name="flux_dev",
        task=PresetTask.TEXT_TO_IMAGE,
        handle="hf://black-forest-labs/FLUX.1-dev",
        license="flux-1-dev-non-commercial-license",
        description="FLUX.1 [dev]: paints anything in 28 steps, steered by a guidance scale.",
        num_parameters=11_901_408_320,
        backbone_class="FluxBackbone",
        backbone_config=_flux_config(guidance_embed=True),
    ),
)


def _vit_config(num_layers: int, num_heads: int, hidden_dim: int) -> Config:
    return {
        "num_layers": num_layers,
        "num_heads": num_heads,
        "hidden_dim": hidden_dim,
        "mlp_dim": 4 * hidden_dim,
    }


_BASE = _vit_config(num_layers=12, num_heads=12, hidden_dim=768)
_LARGE = _vit_config(num_layers=24, num_heads=16, hidden_dim=1024)
_HUGE = _vit_config(num_layers=32, num_heads=16, hidden_dim=1280)


def _vit(
    name: str, version: int, num_parameters: int, size: Config, patch: int, side: int
) -> Preset:
    """Make a row; `patch` and `side` are in pixels. Presets of ImageNet-21k came without a head."""
    has_head = name.endswith("_imagenet")
    corpus = "ImageNet-1k, with its 1,000 labels" if has_head else "ImageNet-21k, without a head"
    images = f"{side}x{side} images in patches of {patch}"
    return Preset(
        name=name,
        task=PresetTask.IMAGE_CLASSIFICATION if has_head else None,
        handle=f"kaggle://keras/vit/keras/{name}/{version}",
        license="apache-2.0",
        description=f"ViT of {size['num_layers']} layers for {images}: {corpus}.",
        num_parameters=num_parameters,
        backbone_class="ViTBackbone",
        backbone_config={"image_shape": (side, side, 3), "patch_size": patch, **size},
    )


_VIT = (
    _vit("vit_base_patch16_224_imagenet", 4, 85_798_656, _BASE, 16, 224),
    _vit("vit_base_patch16_384_imagenet", 4, 86_090_496, _BASE, 16, 384),
    _vit("vit_base_patch32_384_imagenet", 3, 87_528_192, _BASE, 32, 384),
    _vit("vit_large_patch16_224_imagenet", 4, 303_301_632, _LARGE, 16, 224),
    _vit("vit_large_patch16_384_imagenet", 4, 303_690_752, _LARGE, 16, 384),
    _vit("vit_large_patch32_384_imagenet", 3, 305_607_680, _LARGE, 32, 384),
    _vit("vit_base_patch16_224_imagenet21k", 3, 85_798_656, _BASE, 16, 224),
    _vit("vit_base_patch32_224_imagenet21k", 3, 87_455_232, _BASE, 32, 224),
    _vit("vit_large_patch16_224_imagenet21k", 3, 303_301_632, _LARGE, 16, 224),
    _vit("vit_large_patch32_224_imagenet21k", 3, 305_510_400, _LARGE, 32, 224),
    _vit("vit_huge_patch14_224_imagenet21k", 3, 630_764_800, _HUGE, 14, 224),
)


def _f_net(name: str, num_parameters: int, num_layers: int, hidden_dim: int) -> Preset:
    return Preset(
        name=name,
        task=PresetTask.EMBEDDING,
        handle=f"kaggle://keras/f_net/keras/{name}/3",
        license="apache-2.0",
        description=f"FNet of {num_layers} layers for English text, case kept.",
        num_parameters=num_parameters,
        backbone_class="FNetBackbone",
        backbone_config={
            "vocabulary_size": 32_000,
            "num_layers": num_layers,
            "hidden_dim": hidden_dim,
            "intermediate_dim": 4 * hidden_dim,
        },
    )


_F_NET = (
    _f_net("f_net_base_en", 82_861_056, num_layers=12, hidden_dim=768),
    _f_net("f_net_large_en", 236_945_408, num_layers=24, hidden_dim=1024),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (*_BUNDLED, *_FLUX, *_VIT, *_F_NET)}
BUNDLED_NAMES = tuple(preset.name for preset in _BUNDLED)


def get_preset(name: str) -> Preset:
    try:
        return PRESETS[name]
    except KeyError:
        allowed = ", ".join(sorted(PRESETS))
        raise UnknownPresetError(f"preset {name!r} is not one of {allowed}") from None
