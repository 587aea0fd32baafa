"""The denoise loop: rectified flow, one Euler step per pair of neighbouring noise levels.

Knows nothing about jobs, prompts or pictures. Whoever drives the generator decides after each step
whether to go on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from models.flux.backbone import FluxBackbone


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What steers the backbone, one row per image: text [B, T, D], pooled [B, D]."""

    text: Tensor
    pooled: Tensor
    guidance: float | None


@dataclass(frozen=True, slots=True)
class DenoiseStep:
    """Where the loop stands after step `step` of `num_steps`: patches [B, S, 64] float32."""

    step: int
    num_steps: int
    sigma: float
    patches: Tensor


def denoise(
    backbone: FluxBackbone,
    patches: Tensor,
    image_ids: Tensor,
    conditioning: Conditioning,
    sigmas: Tensor,
) -> Iterator[DenoiseStep]:
    """Take `patches` [B, S, 64] from the first noise level to the last, yielding after each step.

    image_ids [1, S, 3], sigmas [num_steps + 1] on the CPU. The patches stay float32; the backbone
    sees them in its own dtype.
    """
    batch, device, dtype = len(patches), patches.device, conditioning.text.dtype
    ids = image_ids.to(device).expand(batch, -1, -1)
    text_ids = torch.zeros(batch, conditioning.text.shape[1], ids.shape[-1], device=device)
    guidance = (
        None
        if conditioning.guidance is None
        else torch.full((batch,), conditioning.guidance, device=device)
    )
    levels = sigmas.tolist()
    for step, (sigma, next_sigma) in enumerate(pairwise(levels), start=1):
        velocity = backbone(
            image=patches.to(dtype),
            image_ids=ids,
            text=conditioning.text,
            text_ids=text_ids,
            y=conditioning.pooled,
            timesteps=torch.full((batch,), sigma, device=device),
            guidance=guidance,
        )
        patches = patches + (next_sigma - sigma) * velocity.float()
        yield DenoiseStep(step, len(levels) - 1, next_sigma, patches)
