"""The sizes of FLUX.1 itself, from the published configurations: nothing is downloaded.

The transformer's is that of the built-in preset; text encoders and autoencoder are those of both
official repositories: google/t5-v1_1-xxl's encoder, openai/clip-vit-large-patch14's text model.
"""

from typing import Literal

import torch

from models.checkpoints.filling import on_meta_device
from models.flux.autoencoder import Autoencoder
from models.flux.backbone import FluxBackbone
from models.flux.clip import ClipTextEncoder
from models.flux.part_configs import AutoencoderConfig, ClipConfig, T5Config
from models.flux.parts import matrix_names
from models.flux.placement import FluxSizes
from models.flux.sizes import FluxParts, measure
from models.flux.t5 import T5Encoder
from models.layers.adapters import Linear
from models.layers.float8_storage import Float8Matrix
from models.presets import get_preset

CLIP = ClipConfig(
    vocab_size=49_408,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=77,
)
T5_XXL = T5Config(
    vocab_size=32_128,
    d_model=4096,
    d_kv=64,
    d_ff=10_240,
    num_layers=24,
    num_heads=64,
    feed_forward_proj="gated-gelu",
)
AUTOENCODER = AutoencoderConfig(
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    latent_channels=16,
    use_quant_conv=False,
    use_post_quant_conv=False,
    scaling_factor=0.3611,
    shift_factor=0.1159,
)


def real_sizes(
    name: Literal["flux_dev", "flux_schnell"], dtype: torch.dtype = torch.bfloat16
) -> FluxSizes:
    """Measure FLUX.1 [dev] or [schnell] in a dtype, as if the checkpoint held that."""
    config = get_preset(name).backbone_config
    assert config is not None, f"{name} has no configuration: this is a bug"
    with on_meta_device():
        backbone, float8 = (FluxBackbone.from_config(config).to(dtype) for _ in range(2))
        clip, t5 = ClipTextEncoder(CLIP).to(dtype), T5Encoder(T5_XXL).to(dtype)
        autoencoder = Autoencoder(AUTOENCODER).to(dtype)
    for weight in matrix_names(float8):
        layer = float8.get_submodule(weight.rpartition(".")[0])
        assert isinstance(layer, Linear), f"{weight} is not of a Linear: this is a bug"
        layer.keep_in_float8(Float8Matrix.of(layer.weight))
    return measure(FluxParts(backbone, float8, clip, t5, autoencoder), is_float8=False)
