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
    """What steers the backbone, one row per image: text [B, T, 4096], pooled [B, 768]."""

    text: Tensor
    pooled: Tensor
    guidance: float | None


@dataclass(frozen=True, slots=True)
class ClassifierFreeGuidance:
    """What to steer away from, by a second forward per step: true classifier-free guidance."""

    negative: Conditioning
    scale: float


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
    classifier_free: ClassifierFreeGuidance | None = None,
) -> Iterator[DenoiseStep]:
    """Take `patches` [B, S, 64] from the first noise level to the last, yielding after each step.

    image_ids [1, S, 3], sigmas [num_steps + 1] on the CPU. The patches stay float32; the backbone
    sees them in its own dtype. With `classifier_free` the velocity is
    `negative + scale * (positive - negative)`, as in diffusers' FluxPipeline.
    """
    ids = image_ids.to(patches.device).expand(len(patches), -1, -1)
    levels = sigmas.tolist()
    for step, (sigma, next_sigma) in enumerate(pairwise(levels), start=1):
        velocity = _velocity(backbone, patches, ids, conditioning, sigma)
        if classifier_free is not None:
            negative = _velocity(backbone, patches, ids, classifier_free.negative, sigma)
            velocity = negative + classifier_free.scale * (velocity - negative)
        patches = patches + (next_sigma - sigma) * velocity
        yield DenoiseStep(step, len(levels) - 1, next_sigma, patches)


def _velocity(
    backbone: FluxBackbone,
    patches: Tensor,
    image_ids: Tensor,
    conditioning: Conditioning,
    sigma: float,
) -> Tensor:
    """Ask the backbone once: [B, S, 64] float32, all rows at the same noise level."""
    batch, device, text = len(patches), patches.device, conditioning.text
    guidance = conditioning.guidance
    velocity: Tensor = backbone(
        image=patches.to(text.dtype),
        image_ids=image_ids,
        text=text,
        text_ids=torch.zeros(batch, text.shape[1], image_ids.shape[-1], device=device),
        y=conditioning.pooled,
        timesteps=torch.full((batch,), sigma, device=device),
        guidance=None if guidance is None else torch.full((batch,), guidance, device=device),
    )
    return velocity.float()
