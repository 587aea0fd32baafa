"""What builds the text encoders and the autoencoder: the `config.json` of each.

As transformers and diffusers write it. Keys that decide about the computation are fields; those
known to decide about nothing here are left out, and any other is refused by its name.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.layers.arguments import Epsilon, NumLayers, Size

# how the weights came about, what training needs, and what only a decoder or a tokenizer uses
_OF_TRANSFORMERS = frozenset(
    {
        "_attn_implementation_autoset",
        "_name_or_path",
        "architectures",
        "bos_token_id",
        "dtype",
        "initializer_factor",
        "initializer_range",
        "output_past",
        "pad_token_id",
        "projection_dim",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)


class _StoredConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    unread: ClassVar[frozenset[str]]

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unread(cls, stored: object) -> object:
        if not isinstance(stored, Mapping):
            return stored
        return {key: value for key, value in stored.items() if key not in cls.unread}


class ClipConfig(_StoredConfig):
    """Of CLIP's text encoder: transformers' CLIPTextConfig, with its defaults."""

    unread = _OF_TRANSFORMERS | {"attention_dropout", "dropout"}

    model_type: Literal["clip_text_model"] = "clip_text_model"
    vocab_size: Size = 49_408
    hidden_size: Size = 512
    intermediate_size: Size = 2048
    num_hidden_layers: NumLayers = 12
    num_attention_heads: Size = 8
    max_position_embeddings: Size = 77
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    eos_token_id: int = 49_407

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        return self


class T5Config(_StoredConfig):
    """Of T5's encoder: transformers' T5Config, with its defaults but for the activation."""

    unread = _OF_TRANSFORMERS | {
        "classifier_dropout",
        "decoder_start_token_id",
        "dense_act_fn",  # that and the next one follow from feed_forward_proj
        "is_gated_act",
        "dropout_rate",
        "eos_token_id",
        "is_encoder_decoder",
        "n_positions",
        "num_decoder_layers",
        "scale_decoder_outputs",
        "task_specific_params",
        "tie_word_embeddings",
    }

    model_type: Literal["t5"] = "t5"
    is_decoder: Literal[False] = False
    vocab_size: Size = 32_128
    d_model: Size = 512
    d_kv: Size = 64
    d_ff: Size = 2048
    num_layers: Size = 6
    num_heads: Size = 8
    relative_attention_num_buckets: Size = Field(default=32, ge=4)
    relative_attention_max_distance: Size = 128
    layer_norm_epsilon: Epsilon = 1e-6
    feed_forward_proj: Literal["gated-gelu"]  # T5 1.1's; of the first T5, the default is another

    @model_validator(mode="after")
    def _check_buckets(self) -> Self:
        num, most = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if most <= num // 4:
            raise ValueError(
                f"relative_attention_max_distance {most} is not above a quarter of "
                f"relative_attention_num_buckets {num}"
            )
        return self


class AutoencoderConfig(_StoredConfig):
    """Of diffusers' AutoencoderKL: FLUX.1's design, in any size."""

    unread = frozenset({"_diffusers_version", "_name_or_path", "force_upcast", "sample_size"})

    class_name: Literal["AutoencoderKL"] = Field(default="AutoencoderKL", alias="_class_name")
    in_channels: Size = 3
    out_channels: Size = 3
    latent_channels: Size
    block_out_channels: tuple[Size, ...] = Field(min_length=1)  # per level, from the image down
    down_block_types: tuple[Literal["DownEncoderBlock2D"], ...]
    up_block_types: tuple[Literal["UpDecoderBlock2D"], ...]
    layers_per_block: Size = 1
    norm_num_groups: Size = 32
    act_fn: Literal["silu"] = "silu"
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    scaling_factor: float
    shift_factor: float
    latents_mean: None = None
    latents_std: None = None

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        widths = self.block_out_channels
        if not len(widths) == len(self.down_block_types) == len(self.up_block_types):
            raise ValueError(
                f"block_out_channels has {len(widths)} levels, down_block_types "
                f"{len(self.down_block_types)} and up_block_types {len(self.up_block_types)}"
            )
        if any(width % self.norm_num_groups for width in widths):
            raise ValueError(
                f"block_out_channels {list(widths)} are not all multiples of norm_num_groups "
                f"{self.norm_num_groups}"
            )
        return self
