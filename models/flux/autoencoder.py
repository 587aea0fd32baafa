"""The autoencoder: pixels to latents and back.

Attribute names are the keys of diffusers' AutoencoderKL, and what it computes (0.42,
models/autoencoders/vae.py, models/resnet.py) is computed here. Knows nothing about files, and
nothing of what latents are scaled and shifted by.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from models.flux.part_configs import AutoencoderConfig
from models.layers.adapters import Linear

NORM_EPSILON = 1e-6
LOG_VARIANCES = (-30.0, 20.0)  # beyond, a standard deviation says nothing


@dataclass(frozen=True, slots=True, eq=False)
class LatentDistribution:
    """Of each latent, [B, 16, h, w]: where a start image's noise is drawn from."""

    mean: Tensor
    log_variance: Tensor

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.log_variance.clamp(*LOG_VARIANCES))


class Autoencoder(nn.Module):
    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        num_moments, num_latents = 2 * config.latent_channels, config.latent_channels
        self.quant_conv = nn.Conv2d(num_moments, num_moments, 1) if config.use_quant_conv else None
        self.post_quant_conv = (
            nn.Conv2d(num_latents, num_latents, 1) if config.use_post_quant_conv else None
        )

    def encode(self, images: Tensor) -> LatentDistribution:
        """Encode images [B, 3, H, W] in -1 … 1, of any dtype and device."""
        moments = self.encoder(images.to(self.encoder.conv_in.weight))
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return LatentDistribution(*moments.chunk(2, dim=1))

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, 16, h, w] to images [B, 3, H, W]; most values are in -1 … 1."""
        latents = latents.to(self.decoder.conv_in.weight)
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        images: Tensor = self.decoder(latents)
        return images


class Encoder(nn.Module):
    """Level by level to half of the size, but behind the last."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        groups, widths = config.norm_num_groups, config.block_out_channels
        self.conv_in = _conv(config.in_channels, widths[0])
        self.down_blocks = nn.ModuleList(
            DownBlock(
                _resnets((before, *(width,) * config.layers_per_block), groups),
                Downsample(width) if level < len(widths) - 1 else None,
            )
            for level, (before, width) in enumerate(pairwise((widths[0], *widths)))
        )
        self.mid_block = MidBlock(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = _norm(groups, widths[-1])
        self.conv_out = _conv(widths[-1], 2 * config.latent_channels)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to the means and log variances of latents, [B, 32, h, w]."""
        x = self.conv_in(images)
        for block in self.down_blocks:
            x = block(x)
        moments: Tensor = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))
        return moments


class Decoder(nn.Module):
    """Level by level to twice the size, but behind the last; each with a block more."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        groups, widths = config.norm_num_groups, config.block_out_channels[::-1]
        self.conv_in = _conv(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, config.mid_block_add_attention)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                _resnets((before, *(width,) * (config.layers_per_block + 1)), groups),
                Upsample(width) if level < len(widths) - 1 else None,
            )
            for level, (before, width) in enumerate(pairwise((widths[0], *widths)))
        )
        self.conv_norm_out = _norm(groups, widths[-1])
        self.conv_out = _conv(widths[-1], config.out_channels)

    @property
    def blocks(self) -> list[UpBlock]:
        return [block for block in self.up_blocks if isinstance(block, UpBlock)]

    def forward(self, latents: Tensor) -> Tensor:
        """[B, 16, h, w] to [B, 3, H, W]."""
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        images: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return images


class DownBlock(nn.Module):
    def __init__(self, resnets: nn.ModuleList, downsample: nn.Module | None) -> None:
        super().__init__()
        self.resnets = resnets
        self.downsamplers = nn.ModuleList([] if downsample is None else [downsample])

    def forward(self, x: Tensor) -> Tensor:
        return _in_turn((*self.resnets, *self.downsamplers), x)


class UpBlock(nn.Module):
    def __init__(self, resnets: nn.ModuleList, upsample: Upsample | None) -> None:
        super().__init__()
        self.resnets = resnets
        self.upsamplers = nn.ModuleList([] if upsample is None else [upsample])

    @property
    def resnet_blocks(self) -> list[ResnetBlock]:
        return [block for block in self.resnets if isinstance(block, ResnetBlock)]

    @property
    def upsample(self) -> Upsample | None:
        """What makes four pixels of each; None in the last block."""
        return next((each for each in self.upsamplers if isinstance(each, Upsample)), None)

    def forward(self, x: Tensor) -> Tensor:
        return _in_turn((*self.resnets, *self.upsamplers), x)


class MidBlock(nn.Module):
    def __init__(self, width: int, num_groups: int, has_attention: bool) -> None:
        super().__init__()
        self.resnets = _resnets((width,) * 3, num_groups)
        attentions = [PixelAttention(width, num_groups)] if has_attention else []
        self.attentions = nn.ModuleList(attentions)

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.resnets
        return _in_turn((first, *self.attentions, last), x)


class ResnetBlock(nn.Module):
    """Two convolutions, each behind a norm and an activation, added to what comes in."""

    def __init__(self, in_width: int, width: int, num_groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(num_groups, in_width)
        self.conv1 = _conv(in_width, width)
        self.norm2 = _norm(num_groups, width)
        self.conv2 = _conv(width, width)
        self.conv_shortcut = None if in_width == width else nn.Conv2d(in_width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        total: Tensor = hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return total


class PixelAttention(nn.Module):
    """Each pixel attends to all, in one head."""

    def __init__(self, width: int, num_groups: int) -> None:
        super().__init__()
        self.group_norm = _norm(num_groups, width)
        self.to_q, self.to_k, self.to_v = (Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        pixels = rearrange(self.group_norm(x), "B C h w -> B 1 (h w) C")
        attended = F.scaled_dot_product_attention(
            self.to_q(pixels), self.to_k(pixels), self.to_v(pixels)
        )
        [project] = self.to_out
        total: Tensor = x + rearrange(project(attended), "B 1 (h w) C -> B C h w", h=x.shape[2])
        return total


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))  # at the right and at the bottom alone
        return halved


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


def _resnets(widths: Iterable[int], num_groups: int) -> nn.ModuleList:
    """Blocks from each width to the next."""
    return nn.ModuleList(ResnetBlock(*pair, num_groups) for pair in pairwise(widths))


def _conv(in_width: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(in_width, width, 3, padding=1)


def _norm(num_groups: int, width: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups, width, NORM_EPSILON)


def _in_turn(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x
