"""How positions and noise levels become numbers for the transformer.

Rotary positions over several axes and the sinusoids of a scalar, as black-forest-labs/flux computes
them (src/flux/math.py and modules/layers.py, commit 802fb47). Angles are float64, their cosines and
sines float32, whatever the weights are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TIME_FACTOR = 1000.0  # sigma in [0, 1] is spread over the range that the sinusoids resolve
MAX_PERIOD = 10_000.0
SINUSOID_WIDTH = 256


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosines and sines of the rotary angles, both [B, 1, L, d/2] float32."""

    cosine: Tensor
    sine: Tensor


def rotation(ids: Tensor, axes_dim: Sequence[int], theta: float) -> Rotation:
    """Turn positions [B, L, axes] into rotations; axis i owns `axes_dim[i]` of the head width."""
    angles = []
    for axis, width in enumerate(axes_dim):
        exponents = torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width
        angles.append(ids[..., axis, None].double() * theta**-exponents)
    angle = torch.cat(angles, dim=-1)[:, None]  # [B, 1, L, d/2]
    return Rotation(angle.cos().float(), angle.sin().float())


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotate neighbouring pairs of the head width: [B, n, L, d] to the same, same dtype."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack(
        (even * by.cosine - odd * by.sine, even * by.sine + odd * by.cosine), dim=-1
    )
    return rotated.flatten(-2).to(x.dtype)


def sinusoids(scalar: Tensor) -> Tensor:
    """Embed sigma or guidance [B] as [B, 256] float32, cosines first."""
    half = SINUSOID_WIDTH // 2
    exponents = torch.arange(half, dtype=torch.float32, device=scalar.device) / half
    frequencies = torch.exp(-math.log(MAX_PERIOD) * exponents)
    angles = TIME_FACTOR * scalar.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
