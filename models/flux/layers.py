"""The blocks of the Flux transformer.

Attribute names are the keys of black-forest-labs checkpoints (src/flux/modules/layers.py, commit
802fb47), so those load without a map. Positions and noise levels become numbers as there
(src/flux/math.py): angles in float64, cosines and sines in float32, whatever the weights are. Knows
nothing about sampling.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.adapters import Linear
from models.layers.attention import attend
from models.layers.norm_folding import FoldingLinear

TIME_FACTOR = 1000.0  # sigma in [0, 1] is spread over the range that the sinusoids resolve
MAX_PERIOD = 10_000.0
SINUSOID_WIDTH = 256


def rotation(ids: Tensor, axes_dim: Sequence[int], theta: float) -> Tensor:
    """Turn positions [..., L, axes] into rotations: cosine and sine, [..., L, d/2, 2] float32.

    Axis i owns `axes_dim[i]` of the head width.
    """
    angles = []
    for axis, width in enumerate(axes_dim):
        exponents = torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width
        angles.append(ids[..., axis, None].double() * theta**-exponents)
    angle = torch.cat(angles, dim=-1)  # [..., L, d/2]
    return torch.stack((angle.cos().float(), angle.sin().float()), dim=-1)


def rotate(x: Tensor, by: Tensor) -> Tensor:
    """Rotate neighbouring pairs of the last axis: [..., d] float32 to the same.

    by [..., d/2, 2]
    """
    pairs = x.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # it fuses real numbers, and writes no code for complex ones
        (even, odd), (cosine, sine) = pairs.unbind(-1), by.unbind(-1)
        turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    else:  # one pass over memory instead of seven
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(by))
    return turned.flatten(-2)


def sinusoids(scalar: Tensor) -> Tensor:
    """Embed sigma or guidance [B] as [B, 256] float32, cosines first."""
    half = SINUSOID_WIDTH // 2
    exponents = torch.arange(half, dtype=torch.float32, device=scalar.device) / half
    frequencies = torch.exp(-math.log(MAX_PERIOD) * exponents)
    angles = TIME_FACTOR * scalar.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


NORM_EPSILON = 1e-6

GeluApproximate = Literal["none", "tanh"]  # as torch's GELU names exact and approximate


@dataclass(frozen=True, slots=True)
class BlockShape:
    """The sizes that all blocks share."""

    width: int  # D
    num_heads: int
    mlp_width: int
    has_qkv_bias: bool
    gelu_approximate: GeluApproximate  # of the double blocks

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads


@dataclass(frozen=True, slots=True)
class Modulated:
    """Shift, scale and gate of one residual branch, each [B, 1, D]."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Normalise [B, L, D], then scale and shift it."""
        return modulate(x, self.shift, self.scale)

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add what the branch made of it to [B, L, D], through the gate."""
        return torch.addcmul(x, self.gate, branch)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise [B, L, D] without learned affine, then scale and shift by [B, 1, D]."""
    return torch.addcmul(shift, 1 + scale, F.layer_norm(x, x.shape[-1:], eps=NORM_EPSILON))


class MLPEmbedder(nn.Module):
    """A vector [B, in_width] to the model's width [B, D]."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.in_layer = Linear(in_width, width)
        self.out_layer = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.out_layer(F.silu(self.in_layer(x)))
        return embedded


class Modulation(nn.Module):
    """The conditioning vector to one `Modulated` per residual branch."""

    def __init__(self, width: int, num_branches: int) -> None:
        super().__init__()
        self.num_branches = num_branches
        self.lin = FoldingLinear(width, 3 * num_branches * width)

    def forward(self, conditioning: Tensor) -> list[Modulated]:
        """conditioning [B, D]."""
        chunks = self.lin(F.silu(conditioning))[:, None].chunk(3 * self.num_branches, dim=-1)
        return [Modulated(*chunks[3 * i : 3 * i + 3]) for i in range(self.num_branches)]


class RMSNorm(nn.Module):
    """The learned scale of a root mean square norm over the head width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))


class QKNorm(nn.Module):
    """The learned scales of the norms of queries and keys."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(head_width)
        self.key_norm = RMSNorm(head_width)

    @property
    def scale(self) -> Tensor:
        """[2, 1, d] float32: of queries, then of keys."""
        return torch.stack((self.query_norm.scale, self.key_norm.scale))[:, None].float()


def normed(qk: Tensor) -> Tensor:
    """Divide [..., d] by its root mean square: float32."""
    qk = qk.float()
    # a norm reads once what a mean of squares writes and reads again
    squares = torch.linalg.vector_norm(qk, dim=-1, keepdim=True).square() / qk.shape[-1]
    return qk * torch.rsqrt(squares + NORM_EPSILON)


def attend_rotated(qk: Tensor, value: Tensor, rotations: Tensor) -> Tensor:
    """Rotate queries and keys [B, L, 2, n, d] float32, and attend: [B, L, n·d].

    value [B, L, n, d], in the dtype to attend in; rotations [B or 1, L, 1, 1, d/2, 2]
    """
    query, key = rearrange(rotate(qk, rotations).to(value.dtype), "B L two n d -> two B n L d")
    return attend(query, key, value.transpose(1, 2))


class SelfAttention(nn.Module):
    """The projections of one stream; the attention itself runs over both streams."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.qkv = Linear(shape.width, 3 * shape.width, bias=shape.has_qkv_bias)
        self.norm = QKNorm(shape.head_width)
        self.proj = Linear(shape.width, shape.width)

    def project(self, x: Tensor) -> Tensor:
        """[B, L, D] to queries, keys and values [B, L, 3, n, d], neither normed nor rotated."""
        return split_heads(self.qkv(x), self.num_heads)


def split_heads(qkv: Tensor, num_heads: int) -> Tensor:
    """[B, L, 3·D] to [B, L, 3, n, d]."""
    return rearrange(qkv, "B L (three n d) -> B L three n d", three=3, n=num_heads)


def mlp(shape: BlockShape) -> nn.Sequential:
    return nn.Sequential(
        Linear(shape.width, shape.mlp_width),
        nn.GELU(approximate=shape.gelu_approximate),
        Linear(shape.mlp_width, shape.width),
    )


class DoubleStreamBlock(nn.Module):
    """Image and text with weights of their own, meeting in one attention."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.img_mod = Modulation(shape.width, num_branches=2)
        self.img_attn = SelfAttention(shape)
        self.img_mlp = mlp(shape)
        self.txt_mod = Modulation(shape.width, num_branches=2)
        self.txt_attn = SelfAttention(shape)
        self.txt_mlp = mlp(shape)

    def forward(
        self, image: Tensor, text: Tensor, conditioning: Tensor, rotations: Tensor
    ) -> tuple[Tensor, Tensor]:
        """image [B, S, D], text [B, T, D], conditioning [B, D]; rotations of text, then image."""
        image_attention, image_feedforward = self.img_mod(conditioning)
        text_attention, text_feedforward = self.txt_mod(conditioning)

        text_qkv = self.txt_attn.project(text_attention.apply(text))
        image_qkv = self.img_attn.project(image_attention.apply(image))
        qkv = torch.cat((text_qkv, image_qkv), dim=1)  # [B, T+S, 3, n, d]
        num_text_tokens = text.shape[1]
        qk = normed(qkv[:, :, :2])
        qk[:, :num_text_tokens].mul_(self.txt_attn.norm.scale)
        qk[:, num_text_tokens:].mul_(self.img_attn.norm.scale)
        attended = attend_rotated(qk, qkv[:, :, 2], rotations)
        attended_text, attended_image = attended.split((num_text_tokens, image.shape[1]), dim=1)

        image = image_attention.add(image, self.img_attn.proj(attended_image))
        image = image_feedforward.add(image, self.img_mlp(image_feedforward.apply(image)))
        text = text_attention.add(text, self.txt_attn.proj(attended_text))
        text = text_feedforward.add(text, self.txt_mlp(text_feedforward.apply(text)))
        return image, text


class SingleStreamBlock(nn.Module):
    """Text and image as one sequence; attention and feed-forward side by side."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.shape = shape
        self.linear1 = Linear(shape.width, 3 * shape.width + shape.mlp_width)
        self.linear2 = Linear(shape.width + shape.mlp_width, shape.width)
        self.norm = QKNorm(shape.head_width)
        self.modulation = Modulation(shape.width, num_branches=1)

    def forward(self, x: Tensor, conditioning: Tensor, rotations: Tensor) -> Tensor:
        """x [B, L, D], conditioning [B, D]."""
        (branch,) = self.modulation(conditioning)
        qkv, feedforward = self.linear1(branch.apply(x)).split(
            (3 * self.shape.width, self.shape.mlp_width), dim=-1
        )
        qkv = split_heads(qkv, self.shape.num_heads)
        qk = normed(qkv[:, :, :2]).mul_(self.norm.scale)
        attended = attend_rotated(qk, qkv[:, :, 2], rotations)
        joined = torch.cat((attended, F.gelu(feedforward, approximate="tanh")), dim=-1)
        result: Tensor = branch.add(x, self.linear2(joined))
        return result


class LastLayer(nn.Module):
    """Modulate once more and project [B, S, D] to velocities [B, S, C]."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.linear = Linear(width, out_width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), FoldingLinear(width, 2 * width))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(conditioning)[:, None].chunk(2, dim=-1)
        velocity: Tensor = self.linear(modulate(x, shift, scale))
        return velocity
