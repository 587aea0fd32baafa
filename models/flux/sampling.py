"""The denoise loop: rectified flow, one Euler step per pair of neighbouring noise levels.

`Schedule` says which levels a run visits, as diffusers' FlowMatchEulerDiscreteScheduler and Flux
pipelines do (0.42). Knows nothing about jobs, prompts or images. Whoever drives the generator
decides after each step whether to go on.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from models.flux.backbone import FluxBackbone


@dataclass(frozen=True, slots=True)
class Schedule:
    """A preset's scheduler configuration, under the names of `scheduler_config.json`."""

    use_dynamic_shifting: bool
    shift: float = 1.0
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096

    def sigmas(self, num_steps: int, num_patches: int, strength: float = 1.0) -> Tensor:
        """Noise levels [num_steps + 1] float32 on the CPU, falling from 1 to 0.

        The dynamic shift grows with the image: `mu` is linear in the number of patches. A
        `strength` below 1 leaves out the first levels: about `strength * num_steps` steps remain.

        Raises ValueError for fewer than one step and for a strength outside (0, 1].
        """
        skipped = _num_skipped(num_steps, strength)
        even = torch.linspace(1.0, 1.0 / num_steps, num_steps, dtype=torch.float64)
        factor = math.exp(self._mu(num_patches)) if self.use_dynamic_shifting else self.shift
        shifted = factor * even / (1 + (factor - 1) * even)
        return torch.cat((shifted, torch.zeros(1, dtype=torch.float64))).float()[skipped:]

    def _mu(self, num_patches: int) -> float:
        slope = (self.max_shift - self.base_shift) / (
            self.max_image_seq_len - self.base_image_seq_len
        )
        return self.base_shift + slope * (num_patches - self.base_image_seq_len)


def _num_skipped(num_steps: int, strength: float) -> int:
    """Count the steps that image-to-image leaves out, rounded as diffusers rounds."""
    if num_steps < 1:
        raise ValueError(f"num_steps {num_steps} is less than 1")
    if not 0 < strength <= 1:
        raise ValueError(f"strength {strength} is not in (0, 1]")
    skipped = int(num_steps - num_steps * strength)
    return min(skipped, num_steps - 1)  # a strength below float's resolution would skip them all


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
