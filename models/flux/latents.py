"""Latents and patches: noise, start images, the 2x2 fold and its exact inverse, positions.

Image-to-image starts as in diffusers' FluxImg2ImgPipeline (0.42). Knows nothing about transformers,
prompts and schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

if TYPE_CHECKING:  # slow to import, and rows alone do without
    from PIL import Image

    from models.flux.autoencoder import Autoencoder

LATENT_CHANNELS = 16
PIXELS_PER_LATENT = 8  # the autoencoder's reduction, per side
PIXELS_PER_PATCH = 16  # and two latents to a patch, per side


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Make one generator per image, on the CPU: one seed gives one noise on every device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw(generators: Sequence[torch.Generator], width: int, height: int) -> Tensor:
    """Draw latents [B, 16, h, w] float32 on the CPU, each row from its own generator.

    So one seed gives one noise in every batch. Sizes in pixels, multiples of 16.
    """
    shape = (LATENT_CHANNELS, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def noise(seeds: Sequence[int], width: int, height: int) -> Tensor:
    """Draw what a text-to-image run starts from: [B, 16, h, w] float32 on the CPU."""
    return draw(generators(seeds), width, height)


def each(rows: Tensor, num_images: int) -> Tensor:
    """Repeat rows [P, …] to one per image [B, …]: each serves the same number of neighbours."""
    return rows.repeat_interleave(num_images // len(rows), dim=0)


def patchify(latents: Tensor) -> Tensor:
    """Fold [B, 16, h, w] to patches [B, S, 64], row by row."""
    return rearrange(latents, "B C (h ph) (w pw) -> B (h w) (C ph pw)", ph=2, pw=2)


def unpatchify(patches: Tensor, width: int, height: int) -> Tensor:
    """Unfold patches [B, S, 64] to latents [B, 16, h, w]. Sizes in pixels."""
    return rearrange(
        patches,
        "B (h w) (C ph pw) -> B C (h ph) (w pw)",
        h=height // PIXELS_PER_PATCH,
        w=width // PIXELS_PER_PATCH,
        ph=2,
        pw=2,
    )


def num_patches(width: int, height: int) -> int:
    """S of an image. Sizes in pixels."""
    return (width // PIXELS_PER_PATCH) * (height // PIXELS_PER_PATCH)


def image_ids(width: int, height: int) -> Tensor:
    """Positions of the patches, [1, S, 3] float32: 0, row, column. Sizes in pixels."""
    rows, columns = height // PIXELS_PER_PATCH, width // PIXELS_PER_PATCH
    ids = torch.zeros(rows, columns, 3)
    ids[..., 1] = torch.arange(rows)[:, None]
    ids[..., 2] = torch.arange(columns)
    return ids.reshape(1, rows * columns, 3)


@dataclass(frozen=True, slots=True)
class Start:
    """What image-to-image starts from.

    images  [B or a part of it] of any mode and size: one for all images, one each, or each for
              as many neighbouring images
    strength  in (0, 1]: the part of the schedule that is run; at 1 nothing of the images is left
    """

    images: Sequence[Image.Image]
    strength: float


def noisy_latents(
    autoencoder: Autoencoder, pixels: Tensor, seeds: Sequence[int], sigma: float
) -> Tensor:
    """Encode pixels [P, 3, H, W] and mix in noise: [B, 16, h, w] float32 on the CPU.

    P divides B, the number of seeds: neighbouring images share an image. Each image's generator
    draws first the sample of the autoencoder's distribution, then the noise.
    """
    height, width = pixels.shape[-2:]
    encoded = autoencoder.encode(pixels)
    own_generators = generators(seeds)
    sample = draw(own_generators, width, height)
    mean, std = (each(moment.float().cpu(), len(seeds)) for moment in (encoded.mean, encoded.std))
    config = autoencoder.config
    start = (mean + std * sample - config.shift_factor) * config.scaling_factor
    mixed: Tensor = sigma * draw(own_generators, width, height) + (1.0 - sigma) * start
    return mixed
