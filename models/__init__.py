"""FLUX.1, ViT and FNet in plain PyTorch: backbones with KerasHub's preset contract, pipelines.

Names resolve on first use, so that `models.presets` can be imported without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from models.presets.table import FAMILIES

if TYPE_CHECKING:
    from models.backbone import Backbone
    from models.flux.backbone import FluxBackbone
    from models.flux.painting import PaintOptions
    from models.flux.text_to_image import TextToImage
    from models.fnet.backbone import FNetBackbone
    from models.fnet.text_embedder import TextEmbedder
    from models.load import load_pipeline
    from models.vit.backbone import ViTBackbone
    from models.vit.image_classifier import ImageClassifier

_HOMES = {
    "Backbone": "models.backbone",
    "ImageClassifier": "models.vit.image_classifier",
    "PaintOptions": "models.flux.painting",
    "TextEmbedder": "models.fnet.text_embedder",
    "TextToImage": "models.flux.text_to_image",
    "load_pipeline": "models.load",
    **FAMILIES,
}

__all__ = [
    "Backbone",
    "FNetBackbone",
    "FluxBackbone",
    "ImageClassifier",
    "PaintOptions",
    "TextEmbedder",
    "TextToImage",
    "ViTBackbone",
    "load_pipeline",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
