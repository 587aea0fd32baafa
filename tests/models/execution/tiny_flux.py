"""A small Flux backbone whose sizes suit products in float8, and inputs for it."""

import torch
from torch import Tensor

from models import FluxBackbone
from tests.models.random_weights import randomise

TEXT_WIDTH, Y_WIDTH = 32, 16


def tiny_flux(dtype: torch.dtype = torch.float32, depth: int = 2) -> FluxBackbone:
    backbone = FluxBackbone(
        64, 64, 4.0, 2, depth, 2, (8, 12, 12), 10_000, True, True,
        text_shape=(None, TEXT_WIDTH), y_shape=(Y_WIDTH,), gelu_approximate="tanh",
    )  # fmt: skip
    randomise(backbone, spread=0.1)
    return backbone.to(dtype).eval().requires_grad_(False)


@torch.inference_mode()
def velocity(
    backbone: FluxBackbone, num_rows: int = 1, num_patches: int = 24, seed: int = 0
) -> Tensor:
    """Call with random inputs: [B, S, 64]."""
    random = torch.Generator().manual_seed(seed)
    dtype = backbone.img_in.weight.dtype

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(dtype)

    ids = torch.arange(num_patches)[None, :, None].expand(num_rows, -1, 3).float()
    predicted: Tensor = backbone(
        image=values(num_rows, num_patches, 64),
        image_ids=ids,
        text=values(num_rows, 8, TEXT_WIDTH),
        text_ids=torch.zeros(num_rows, 8, 3),
        y=values(num_rows, Y_WIDTH),
        timesteps=torch.rand(num_rows, generator=random),
        guidance=torch.full((num_rows,), 3.5),
    )
    return predicted
