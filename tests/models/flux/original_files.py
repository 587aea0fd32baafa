"""Original single files, written from diffusers' modules by a map of their own.

Independent of the maps under test: it goes from diffusers' tensors to the original's, as ComfyUI
and black-forest-labs name them.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor

from tests.models.flux.conftest import POOLED_WIDTH, TEXT_WIDTH, randomise

OUTER = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
STREAMS = {  # of a double block: ours, the modulation, projections, norms, output, feed-forward
    "img": ("norm1", ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), "to_out.0", "ff"),
    "txt": (
        "norm1_context",
        ("add_q_proj", "add_k_proj", "add_v_proj"),
        ("norm_added_q", "norm_added_k"),
        "to_add_out",
        "ff_context",
    ),
}


def tiny_original(has_guidance: bool) -> FluxTransformer2DModel:
    """A transformer of the original's head width, whose axes need no configuration."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=128,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        guidance_embeds=has_guidance,
        axes_dims_rope=(16, 56, 56),
    ).eval()
    randomise(transformer, seed=3)
    return transformer


def original_transformer(oracle: FluxTransformer2DModel) -> dict[str, Tensor]:
    """The transformer's tensors under the original's names."""
    theirs = oracle.state_dict()
    made: dict[str, Tensor] = {}
    for ending in ("weight", "bias"):
        for original, name in OUTER.items():
            if f"{name}.{ending}" in theirs:
                made[f"{original}.{ending}"] = theirs[f"{name}.{ending}"]
        scale, shift = theirs[f"norm_out.linear.{ending}"].chunk(2)
        made[f"final_layer.adaLN_modulation.1.{ending}"] = torch.cat((shift, scale))
    for index in range(oracle.config.num_layers):
        made |= _double_block(theirs, index)
    for index in range(oracle.config.num_single_layers):
        made |= _single_block(theirs, index)
    return made


def _double_block(theirs: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    block, made = f"transformer_blocks.{index}", {}
    for stream, (modulation, qkv, norms, out, mlp) in STREAMS.items():
        ours = f"double_blocks.{index}.{stream}"
        for kind, name in zip(("query", "key"), norms, strict=True):
            made[f"{ours}_attn.norm.{kind}_norm.scale"] = theirs[f"{block}.attn.{name}.weight"]
        for ending in ("weight", "bias"):
            parts = [theirs[f"{block}.attn.{name}.{ending}"] for name in qkv]
            made[f"{ours}_attn.qkv.{ending}"] = torch.cat(parts)
            made[f"{ours}_attn.proj.{ending}"] = theirs[f"{block}.attn.{out}.{ending}"]
            made[f"{ours}_mod.lin.{ending}"] = theirs[f"{block}.{modulation}.linear.{ending}"]
            made[f"{ours}_mlp.0.{ending}"] = theirs[f"{block}.{mlp}.net.0.proj.{ending}"]
            made[f"{ours}_mlp.2.{ending}"] = theirs[f"{block}.{mlp}.net.2.{ending}"]
    return made


def _single_block(theirs: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    block, ours, made = f"single_transformer_blocks.{index}", f"single_blocks.{index}", {}
    made[f"{ours}.norm.query_norm.scale"] = theirs[f"{block}.attn.norm_q.weight"]
    made[f"{ours}.norm.key_norm.scale"] = theirs[f"{block}.attn.norm_k.weight"]
    for ending in ("weight", "bias"):
        names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        made[f"{ours}.linear1.{ending}"] = torch.cat(
            [theirs[f"{block}.{n}.{ending}"] for n in names]
        )
        made[f"{ours}.linear2.{ending}"] = theirs[f"{block}.proj_out.{ending}"]
        made[f"{ours}.modulation.lin.{ending}"] = theirs[f"{block}.norm.linear.{ending}"]
    return made


def tiny_autoencoder() -> AutoencoderKL:
    """FLUX.1's design in little: other widths, the same constants."""
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 96),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=32,
        sample_size=1024,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    randomise(autoencoder, seed=4)
    return autoencoder


def write(file: Path, tensors: Mapping[str, Tensor], prefix: str = "") -> Path:
    contiguous = {f"{prefix}{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, file)
    return file
