"""Tiny backbones to enable LoRA on, one of each family."""

from models import Backbone, FluxBackbone, FNetBackbone, ViTBackbone
from models.layers.adapters import adaptable_layers
from tests.models.random_weights import randomise


def vit() -> ViTBackbone:
    backbone = ViTBackbone((8, 8, 3), 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12)
    randomise(backbone)
    return backbone.eval()


def fnet() -> FNetBackbone:
    return FNetBackbone(11, num_layers=2, hidden_dim=6, intermediate_dim=8, max_sequence_length=9)


def flux() -> FluxBackbone:
    return FluxBackbone(4, 8, 2.0, 2, 1, 1, (0, 2, 2), 10_000, True, True, y_shape=(5,))


def targets(backbone: Backbone) -> list[str]:
    return [name for name, layer in adaptable_layers(backbone).items() if layer.is_adapted]
