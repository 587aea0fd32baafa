"""What the image model of `flux_shapes` learns at noisy images: flow matching, distilled guidance.

Knows nothing about where images and sentences come from.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.flux.latents import image_ids
from training.acceleration import native_autocast
from training.text_encoders import CODE, PART_OF_FEATURE, WIDTH

SIDE = 128  # pixels
EMPTY_SHARE = 0.06  # features dropped: an unconditional velocity to guide away from
FEATURE_NOISE = 0.05  # other people's sentences are read less surely than the pool's
CLIP_WRONG_SHARE = 0.03  # of the parts of a code, for CLIP alone: T5 reads better and is believed
SIGMA_SHIFT = 2.0  # more training at high noise, where the scene is decided
GUIDANCE_RANGE = (1.0, 3.0)
FLOW_SEED = 1_000_000  # beyond any step


@dataclass(frozen=True, slots=True)
class Sample:
    """noisy and velocity [B, S, 64], text [B, T, D], pooled [B, D], sigma and guidance [B]."""

    noisy: Tensor
    velocity: Tensor
    text: Tensor
    pooled: Tensor
    sigma: Tensor
    guidance: Tensor


def draw_sigmas(count: int, generator: torch.Generator) -> Tensor:
    """Draw the noise levels of images, [count] in [0, 1)."""
    even = torch.rand(count, generator=generator)
    return SIGMA_SHIFT * even / (1 + (SIGMA_SHIFT - 1) * even)


def draw_guidance(count: int, generator: torch.Generator) -> Tensor:
    return torch.empty(count).uniform_(*GUIDANCE_RANGE, generator=generator)


def noised(clean: Tensor, text: Tensor, pooled: Tensor, generator: torch.Generator) -> Sample:
    """Put clean patches [B, S, 64] under noise of any level; the texts may be float16."""
    noise = torch.randn(clean.shape, generator=generator)
    sigma = draw_sigmas(len(clean), generator)
    return Sample(
        noisy=torch.lerp(clean, noise, sigma[:, None, None]),
        velocity=noise - clean,
        text=text.float(),
        pooled=pooled.float(),
        sigma=sigma,
        guidance=draw_guidance(len(clean), generator),
    )


def predict(
    backbone: nn.Module, batch: Sample, guidance: Tensor, text: Tensor, pooled: Tensor
) -> Tensor:
    size = len(batch.noisy)
    with native_autocast():
        velocity: Tensor = backbone(
            image=batch.noisy,
            image_ids=image_ids(SIDE, SIDE).expand(size, -1, -1),
            text=text,
            text_ids=torch.zeros(size, text.shape[1], 3),
            y=pooled,
            timesteps=batch.sigma,
            guidance=guidance,
        )
    return velocity.float()


def misread(pooled: Tensor, generator: torch.Generator) -> Tensor:
    """Let features [B, D] say some parts of what the one before says."""
    is_wrong = torch.rand(len(pooled), len(CODE), generator=generator) < CLIP_WRONG_SHARE
    num_said = len(PART_OF_FEATURE)
    said = torch.where(is_wrong[:, PART_OF_FEATURE], pooled.roll(1, dims=0)[:, :num_said],
                       pooled[:, :num_said])  # fmt: skip
    return torch.cat((said, pooled[:, num_said:]), dim=1)


def disturb(batch: Sample, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give the text features a little off, by the same at every token, and CLIP's also misread.

    Noise that differs from token to token would average out.
    """
    noise = FEATURE_NOISE * torch.randn(2, len(batch.pooled), WIDTH, generator=generator)
    return batch.text + noise[0, :, None], misread(batch.pooled, generator) + noise[1]


def flow_loss(backbone: nn.Module, batch: Sample, step: int) -> Tensor:
    """The flow-matching loss at guidance 1, the plain conditional velocity."""
    # another stream than `sample`'s: the text must not hold the noise of the image
    generator = torch.Generator().manual_seed(step + FLOW_SEED)
    size = len(batch.pooled)
    is_dropped = torch.rand(size, 1, generator=generator) < EMPTY_SHARE
    text, pooled = disturb(batch, generator)
    text = text.masked_fill(is_dropped[:, None], 0.0)
    pooled = pooled.masked_fill(is_dropped, 0.0)
    predicted = predict(backbone, batch, torch.ones(size), text, pooled)
    return (predicted - batch.velocity).square().mean()


def distillation_loss(student: nn.Module, teacher: nn.Module, batch: Sample, step: int) -> Tensor:
    """Teach in one pass what two passes of the teacher give.

    Both read what the encoders say of the sentences, wrong or not: measured against what the
    sentences truly say, the few that are misread would outweigh all others. The student meets
    CLIP's misreadings as often as the teacher did, to learn as well that T5 is to be believed.
    """
    text, pooled = disturb(batch, torch.Generator().manual_seed(step + FLOW_SEED))
    ones = torch.ones(len(batch.pooled))
    with torch.no_grad():
        given = predict(teacher, batch, ones, text, pooled)
        free = predict(teacher, batch, ones, torch.zeros_like(text), torch.zeros_like(pooled))
        target = free + batch.guidance[:, None, None] * (given - free)
    predicted = predict(student, batch, batch.guidance, text, pooled)
    return (predicted - target).square().mean()
