"""Read a Flux transformer in diffusers' layout: `transformer/` of a pipeline's directory, or alone.

`config.json` beside one safetensors file or shards of it. Knows nothing about the other folders.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.checkpoints import preset_files
from models.checkpoints.float8 import Float8Files
from models.flux.formats.diffusers_weights import recipes
from models.presets.formats import StoredBackbone

TRANSFORMER_FOLDER = "transformer"
WEIGHTS_STEM = "diffusion_pytorch_model"
MLP_RATIO = 4.0  # fixed in diffusers' FluxTransformer2DModel
THETA = 10_000  # likewise


class TransformerConfig(BaseModel):
    """`transformer/config.json`, as far as it decides about the computation."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    class_name: Literal["FluxTransformer2DModel"] = Field(alias="_class_name")
    patch_size: Literal[1] = 1
    in_channels: int = 64
    out_channels: int | None = None  # None: as many as come in, which is all that we compute
    num_layers: int = 19
    num_single_layers: int = 38
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096
    pooled_projection_dim: int = 768
    guidance_embeds: bool = False
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        if self.out_channels not in (None, self.in_channels):
            raise ValueError(
                f"out_channels {self.out_channels} is not in_channels {self.in_channels}"
            )
        return self

    def arguments(self) -> dict[str, object]:
        """Say the same as arguments of `FluxBackbone`."""
        return {
            "input_channels": self.in_channels,
            "hidden_size": self.num_attention_heads * self.attention_head_dim,
            "mlp_ratio": MLP_RATIO,
            "num_heads": self.num_attention_heads,
            "depth": self.num_layers,
            "depth_single_blocks": self.num_single_layers,
            "axes_dim": self.axes_dims_rope,
            "theta": THETA,
            "use_bias": True,
            "guidance_embed": self.guidance_embeds,
            "image_shape": (None, self.in_channels),
            "text_shape": (None, self.joint_attention_dim),
            "y_shape": (self.pooled_projection_dim,),
            "gelu_approximate": "tanh",
        }


def read_stored(directory: Path) -> StoredBackbone:
    """Read what builds the transformer of a pipeline's directory, or of a directory of its own.

    Raises PresetFileError for a missing or malformed file and for another class.
    """
    is_pipeline = preset_files.is_diffusers_directory(directory)
    folder = directory / TRANSFORMER_FOLDER if is_pipeline else directory
    config = preset_files.read_model(folder, preset_files.CONFIG_FILE, TransformerConfig)
    return StoredBackbone(
        "FluxBackbone",
        config.arguments(),
        lambda: Float8Files.in_directory(folder, WEIGHTS_STEM),
        recipes,
    )
