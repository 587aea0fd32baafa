"""How many floating-point operations a forward needs: 2 per multiply-add of its matrix products.

Norms, activations and Fourier transforms are not counted: they are bandwidth, not arithmetic.
"""

from models import FluxBackbone, FNetBackbone, ViTBackbone
from models.flux.layers import SINUSOID_WIDTH


def flux_step(backbone: FluxBackbone, num_patches: int, num_text_tokens: int) -> int:
    """Count one forward of one image; 74.4e12 for FLUX.1 dev at 1024x1024 with 512 tokens."""
    width, length = backbone.hidden_size, num_patches + num_text_tokens
    num_blocks = backbone.depth + backbone.depth_single_blocks
    mlp_width = int(width * backbone.mlp_ratio)
    linear = num_blocks * length * width * (4 * width + 2 * mlp_width)
    attention = num_blocks * 2 * length**2 * width
    text_width = backbone.txt_in.in_features
    pooled_width = backbone.vector_in.in_layer.in_features
    ends = width * (2 * num_patches * backbone.input_channels + num_text_tokens * text_width)
    num_scalars = 2 if backbone.guidance_embed else 1  # sigma, and guidance where it is embedded
    embedders = (num_scalars * SINUSOID_WIDTH + pooled_width + (num_scalars + 1) * width) * width
    modulation = (12 * backbone.depth + 3 * backbone.depth_single_blocks + 2) * width**2
    return 2 * (linear + attention + ends + embedders + modulation)


def vit(backbone: ViTBackbone) -> int:
    """Count one image; 35.1e9 for ViT-B/16 at 224x224."""
    length = backbone.patching.position_embedding.num_embeddings
    num_patches = length - int(backbone.use_class_token)
    patching = num_patches * backbone.patching.patch_embedding.weight.numel()
    per_layer = length * backbone.hidden_dim * (4 * backbone.hidden_dim + 2 * backbone.mlp_dim)
    attention = 2 * length**2 * backbone.hidden_dim
    return 2 * (patching + backbone.num_layers * (per_layer + attention))


def fnet(backbone: FNetBackbone, num_tokens: int) -> int:
    """Count one text, without its Fourier transforms."""
    width = backbone.hidden_dim
    feedforward = backbone.num_layers * num_tokens * 2 * width * backbone.intermediate_dim
    return 2 * (feedforward + num_tokens * width**2 + width**2)  # the projection and the pooler
