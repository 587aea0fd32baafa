"""Small pictures of latents on their way, without the autoencoder's decoder.

A latent's 16 channels say by and large what colour its 8x8 pixels have. The linear map from the
one to the other is fitted to the autoencoder itself, so that no model's numbers need be known.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from models.flux import pixels
from models.flux.autoencoder import Autoencoder
from models.flux.latents import LATENT_CHANNELS, PIXELS_PER_LATENT

SAMPLE_SIDE = 128  # pixels: nine samples are 2,304 latents, for the 17 numbers of a colour
NUM_SAMPLES = 9
CORNERS = (2, 4, 8)  # of a side: samples from coarse to fine
CONTRAST = 3.0  # with it most colours are full ones, as white and black are, which pictures are of


@dataclass(frozen=True, slots=True, eq=False)
class PreviewMap:
    """Latents to colours.

    weight  [16, 3] float32
    bias    [3] float32; colours are -1 … 1
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    @torch.inference_mode()
    def fit(cls, autoencoder: Autoencoder) -> PreviewMap:
        """Fit to what the encoder makes of smooth coloured samples, by least squares."""
        samples = _samples()
        encoded = autoencoder.encode(samples).mean.double().cpu()
        config = autoencoder.config
        latents = (encoded - config.shift_factor) * config.scaling_factor
        known = rearrange(latents, "B C h w -> (B h w) C")
        colours = rearrange(
            F.avg_pool2d(samples, PIXELS_PER_LATENT), "B C h w -> (B h w) C"
        ).double()
        # gelsd: a channel that says nothing is no error
        solved = torch.linalg.lstsq(F.pad(known, (0, 1), value=1.0), colours, driver="gelsd")
        found = solved.solution.float()
        return cls(found[:LATENT_CHANNELS], found[LATENT_CHANNELS])

    def picture(self, latents: Tensor) -> np.ndarray:
        """Turn latents [B, 16, h, w] into pictures [B, h, w, 3] uint8."""
        weight, bias = self.weight.to(latents.device), self.bias.to(latents.device)
        colours = torch.einsum("Bchw,ck->Bkhw", latents, weight) + bias[:, None, None]
        return pixels.to_levels(colours)


def _samples() -> Tensor:
    """Draw random colours that run into each other, [B, 3, H, W] in -1 … 1."""
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _, side in zip(range(NUM_SAMPLES), cycle(CORNERS), strict=False):
        corners = CONTRAST * (2 * torch.rand(1, 3, side, side, generator=generator) - 1)
        drawn.append(
            F.interpolate(corners.clamp(-1, 1), SAMPLE_SIDE, mode="bilinear", align_corners=True)
        )
    return torch.cat(drawn)
