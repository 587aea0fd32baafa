"""What configurations of text encoders and autoencoders may say; whatever else is refused."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from models.flux.part_configs import AutoencoderConfig, ClipConfig, T5Config

# as black-forest-labs/FLUX.1-dev and -schnell have them
CLIP: dict[str, Any] = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.3",
    "vocab_size": 49408,
}
T5: dict[str, Any] = {
    "_name_or_path": "google/t5-v1_1-xxl",
    "architectures": ["T5EncoderModel"],
    "classifier_dropout": 0.0,
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "decoder_start_token_id": 0,
    "dense_act_fn": "gelu_new",
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_decoder_layers": 24,
    "num_heads": 64,
    "num_layers": 24,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.3",
    "use_cache": True,
    "vocab_size": 32128,
}
AUTOENCODER: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.30.0.dev0",
    "_name_or_path": "../checkpoints/flux-dev",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 16,
    "latents_mean": None,
    "latents_std": None,
    "layers_per_block": 2,
    "mid_block_add_attention": True,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
PUBLISHED = [(ClipConfig, CLIP), (T5Config, T5), (AutoencoderConfig, AUTOENCODER)]


@pytest.mark.parametrize(("config", "published"), PUBLISHED)
def test_published_configurations_are_read_as_they_are(
    config: type[BaseModel], published: dict[str, Any]
) -> None:
    read = config.model_validate(published).model_dump(mode="json")
    assert {key: published[key] for key in read if key in published} == {
        key: value for key, value in read.items() if key in published
    }


@pytest.mark.parametrize(("config", "published"), PUBLISHED[:2])
def test_what_transformers_4_46_left_behind_decides_nothing(
    config: type[BaseModel], published: dict[str, Any]
) -> None:
    left_behind = {"_attn_implementation_autoset": True}
    assert config.model_validate(published | left_behind) == config.model_validate(published)


@pytest.mark.parametrize(("config", "published"), PUBLISHED)
def test_a_key_that_nobody_knows_is_refused_by_its_name(
    config: type[BaseModel], published: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match=r"quantization_config\n.*not permitted"):
        config.model_validate(published | {"quantization_config": {"bits": 4}})


@pytest.mark.parametrize(
    ("config", "published", "change", "said"),
    [
        (ClipConfig, CLIP, {"hidden_act": "relu"}, "hidden_act\n.*'quick_gelu' or 'gelu'"),
        (ClipConfig, CLIP, {"num_attention_heads": 7}, "hidden_size 768 is not a multiple of .* 7"),
        (T5Config, T5, {"model_type": "umt5"}, "model_type\n.*'t5'"),
        (T5Config, T5, {"feed_forward_proj": "relu"}, "feed_forward_proj\n.*'gated-gelu'"),
        (T5Config, T5, {"is_decoder": True}, "is_decoder\n.*False"),
        (T5Config, T5, {"relative_attention_max_distance": 8}, "8 is not above a quarter of .* 32"),
        (
            AutoencoderConfig,
            AUTOENCODER,
            {"up_block_types": ["UpDecoderBlock2D"] * 3 + ["AttnUpDecoderBlock2D"]},
            "up_block_types.3\n.*'UpDecoderBlock2D'.*AttnUpDecoderBlock2D",
        ),
        (
            AutoencoderConfig,
            AUTOENCODER,
            {"block_out_channels": [128, 256, 512]},
            "block_out_channels has 3 levels, down_block_types 4 and up_block_types 4",
        ),
        (AutoencoderConfig, AUTOENCODER, {"norm_num_groups": 48}, "multiples of .* 48"),
        (AutoencoderConfig, AUTOENCODER, {"latents_mean": [0.0]}, "latents_mean\n.*None"),
    ],
)  # fmt: skip
def test_what_is_not_computed_is_refused(
    config: type[BaseModel], published: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        config.model_validate(published | change)
