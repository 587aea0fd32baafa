"""Tiny Flux pipelines with random weights, written by diffusers' and transformers' own savers."""

from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    T5Config,
    T5EncoderModel,
)

from training.text_encoders import build_clip_tokenizer, build_t5_tokenizer

TEXT_WIDTH, POOLED_WIDTH = 32, 24


def randomise(module: nn.Module, seed: int) -> None:
    """Give every parameter a non-trivial value: norms' scales and biases too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            spread = 0.5 / max(parameter.shape[-1], 1) ** 0.5 if parameter.ndim > 1 else 0.2
            centre = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))


def tiny_transformer(has_guidance: bool) -> FluxTransformer2DModel:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        guidance_embeds=has_guidance,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    randomise(transformer, seed=1)
    return transformer


def tiny_pipeline(
    has_guidance: bool, use_dynamic_shifting: bool, num_clip_positions: int = 32
) -> FluxPipeline:
    """A whole FluxPipeline, like `dev` with guidance and a dynamic shift or like `schnell`."""
    t5_tokenizer, clip_tokenizer = build_t5_tokenizer(), build_clip_tokenizer()
    torch.manual_seed(0)
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=POOLED_WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=POOLED_WIDTH,
            max_position_embeddings=num_clip_positions,
            bos_token_id=clip_tokenizer.bos_token_id,
            eos_token_id=clip_tokenizer.eos_token_id,
        )
    ).eval()
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=8,
            num_heads=2,
            d_ff=64,
            num_layers=2,
            feed_forward_proj="gated-gelu",
        )
    ).eval()
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    for seed, module in enumerate((clip, t5, autoencoder)):
        randomise(module, seed=10 + seed)
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=use_dynamic_shifting
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=autoencoder,
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=tiny_transformer(has_guidance),
    )


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[FluxPipeline, Path]]:
    """`dev` and `schnell`: the oracle and the directory that it saved itself to."""
    made = {}
    for name, is_dev in (("dev", True), ("schnell", False)):
        directory = tmp_path_factory.mktemp(name)
        pipeline = tiny_pipeline(has_guidance=is_dev, use_dynamic_shifting=is_dev)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.save_pretrained(directory, safe_serialization=True)
        made[name] = (pipeline, directory)
    return made
