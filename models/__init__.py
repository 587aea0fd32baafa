"""FLUX.1, ViT and FNet backbones with KerasHub's preset contract, in plain PyTorch.

Names resolve on first use, so that `models.presets` can be imported without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.backbone import Backbone
    from models.flux.backbone import FluxBackbone
    from models.fnet.backbone import FNetBackbone
    from models.vit.backbone import ViTBackbone

_HOMES = {
    "Backbone": "models.backbone",
    "FNetBackbone": "models.fnet.backbone",
    "FluxBackbone": "models.flux.backbone",
    "ViTBackbone": "models.vit.backbone",
}

__all__ = ["Backbone", "FNetBackbone", "FluxBackbone", "ViTBackbone"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
