"""Read a Flux directory in diffusers' layout: transformer, autoencoder, schedule.

`model_index.json` beside `transformer/`, `vae/`, `scheduler/`; the text encoders and tokenizers are
read by `text_encoders.py`. Safetensors only.
"""

from dataclasses import fields
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models import preset_files
from models.errors import PresetFileError, WeightsError
from models.flux.backbone import FluxBackbone
from models.flux.diffusers_weights import from_diffusers, recipes
from models.flux.schedule import Schedule
from models.formats import StoredBackbone
from models.safetensors_files import SafetensorsFiles

TRANSFORMER_CONFIG_FILE = "transformer/config.json"
MLP_RATIO = 4.0  # fixed in diffusers' FluxTransformer2DModel
THETA = 10_000  # likewise


class TransformerConfig(BaseModel):
    """`transformer/config.json`, as far as it decides about the computation."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    in_channels: int = 64
    num_layers: int = 19
    num_single_layers: int = 38
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096
    pooled_projection_dim: int = 768
    guidance_embeds: bool = False
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)

    def build(self) -> FluxBackbone:
        """Build the backbone; raises ValueError for sizes that do not go together."""
        return FluxBackbone(
            input_channels=self.in_channels,
            hidden_size=self.num_attention_heads * self.attention_head_dim,
            mlp_ratio=MLP_RATIO,
            num_heads=self.num_attention_heads,
            depth=self.num_layers,
            depth_single_blocks=self.num_single_layers,
            axes_dim=self.axes_dims_rope,
            theta=THETA,
            use_bias=True,
            guidance_embed=self.guidance_embeds,
            image_shape=(None, self.in_channels),
            text_shape=(None, self.joint_attention_dim),
            y_shape=(self.pooled_projection_dim,),
            gelu_approximate="tanh",
        )


class _SchedulerConfig(BaseModel):
    """`scheduler/scheduler_config.json`; what `Schedule` does not compute must be off."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    use_dynamic_shifting: bool = False
    shift: float = 1.0
    base_shift: float | None = 0.5
    max_shift: float | None = 1.15
    base_image_seq_len: int | None = 256
    max_image_seq_len: int | None = 4096
    time_shift_type: Literal["exponential"] = "exponential"
    shift_terminal: None = None
    invert_sigmas: Literal[False] = False
    stochastic_sampling: Literal[False] = False
    use_karras_sigmas: Literal[False] | None = False
    use_exponential_sigmas: Literal[False] | None = False
    use_beta_sigmas: Literal[False] | None = False


class _WeightsIndex(BaseModel):
    """`….safetensors.index.json`: which file holds each tensor."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    weight_map: dict[str, str]


def read_stored(directory: Path) -> StoredBackbone:
    """Read what builds the transformer.

    Raises PresetFileError for a missing file or sizes that do not go together.
    """
    return StoredBackbone(
        "FluxBackbone",
        build_backbone(directory).get_config(),
        lambda: SafetensorsFiles.in_directory(directory / "transformer", "diffusion_pytorch_model"),
        recipes,
    )


def build_backbone(directory: Path) -> FluxBackbone:
    """Build the transformer on the meta device, without weights.

    Raises PresetFileError for a missing file or sizes that do not go together.
    """
    config = preset_files.read_model(directory, TRANSFORMER_CONFIG_FILE, TransformerConfig)
    try:
        with torch.device("meta"):
            return config.build()
    except ValueError as error:
        file = directory / TRANSFORMER_CONFIG_FILE
        raise PresetFileError(f"{file} is malformed: {error}") from error


def load_backbone(directory: Path, device: str, dtype: torch.dtype | None) -> FluxBackbone:
    """Build the transformer on the meta device and give it its weights.

    Raises PresetFileError for a missing or malformed file, WeightsError for weights that do not
    fit.
    """
    backbone = build_backbone(directory)
    load_weights(backbone, directory, device, dtype)
    return backbone.eval().requires_grad_(False)


def load_weights(
    backbone: FluxBackbone, directory: Path, device: str, dtype: torch.dtype | None
) -> None:
    """Give every parameter of a backbone on the meta device its tensor.

    Raises PresetFileError for a missing or unreadable file, WeightsError for weights that do not
    fit; then the backbone is unchanged.
    """
    theirs = load_safetensors(directory / "transformer", "diffusion_pytorch_model", device)
    state = from_diffusers(backbone.state_dict().keys(), theirs)
    if dtype is not None:
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
    _check_shapes(backbone, state)
    backbone.load_state_dict(state, assign=True)


def load_autoencoder(directory: Path, device: str, dtype: torch.dtype | None) -> AutoencoderKL:
    with preset_files.reading(directory / "vae") as folder:
        autoencoder = AutoencoderKL.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            local_files_only=True,
        )
    return autoencoder.to(device).eval().requires_grad_(False)


def load_schedule(directory: Path) -> Schedule:
    config = preset_files.read_model(directory, "scheduler/scheduler_config.json", _SchedulerConfig)
    computed = {field.name for field in fields(Schedule)}
    return Schedule(**config.model_dump(include=computed, exclude_none=True))


def load_safetensors(directory: Path, stem: str, device: str) -> dict[str, Tensor]:
    """Read `stem.safetensors`, or the shards that `stem.safetensors.index.json` names.

    Raises PresetFileError for a missing or malformed file and for a shard in another directory.
    """
    index = f"{stem}.safetensors.index.json"
    names = [f"{stem}.safetensors"]
    if (directory / index).is_file():
        weight_map = preset_files.read_model(directory, index, _WeightsIndex).weight_map
        names = sorted(set(weight_map.values()))
    tensors: dict[str, Tensor] = {}
    for name in names:
        file = directory / name
        if Path(name).name != name:
            raise PresetFileError(f"{directory / index} names {name!r}, not a file beside it")
        if not file.is_file():
            raise PresetFileError(f"{file} is missing")
        try:
            tensors.update(load_file(file, device=device))
        except SafetensorError as error:
            raise PresetFileError(f"{file} is not a safetensors file: {error}") from error
    return tensors


def _check_shapes(backbone: FluxBackbone, state: dict[str, Tensor]) -> None:
    wrong = [
        f"{name} {list(state[name].shape)}, not {list(wanted.shape)}"
        for name, wanted in backbone.state_dict().items()
        if state[name].shape != wanted.shape
    ]
    if wrong:
        raise WeightsError(f"transformer weights of a wrong shape: {'; '.join(wrong)}")
