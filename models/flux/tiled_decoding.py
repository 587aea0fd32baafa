"""Decode latents in bands of rows: what `Autoencoder.decode` computes, in half of its memory.

The decoder runs layer by layer, each layer over bands of the image that reach as far beyond as its
kernel does, and a group norm takes its statistics from all bands. So there are no seams to blend.
diffusers' own tiling decodes every tile as an image of its own, whose norms and attention see that
tile alone: colours and contrasts then change from tile to tile.

The largest of the decoder's maps, what its last upsampler makes, is never stored: its rows are
computed when they are needed, twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.flux.autoencoder import Autoencoder, ResnetBlock

# 128 rows of 1024 pixels: few launches, and 128 MiB for 256 channels of float32
BAND_PIXELS = 2**17
REACH = 1  # pixels, of all of the decoder's convolutions


Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Map:
    """Channels of an image by their rows: `rows(first, end)` is [1, C, rows, W].

    `stored` [1, C, H, W] is all of them, where they lie in memory and are not computed.
    """

    height: int
    width: int
    rows: Callable[[int, int], Tensor]
    stored: Tensor | None = None

    @classmethod
    def of(cls, stored: Tensor) -> _Map:
        height, width = stored.shape[-2:]
        return cls(height, width, lambda first, end: stored[:, :, first:end], stored)

    def bands(self) -> Iterator[tuple[int, int]]:
        """Cut the rows into bands, from the top down: first and end."""
        num_rows = max(1, BAND_PIXELS // self.width)
        for first in range(0, self.height, num_rows):
            yield first, min(first + num_rows, self.height)

    def then(self, layer: Layer, reach: int = 0) -> _Map:
        """Follow with a layer that looks so many pixels far, and pads with zeros.

        It gets neighbouring rows where there are any, so that it pads at the image's edges alone.
        """

        def rows(first: int, end: int) -> Tensor:
            low, high = max(first - reach, 0), min(end + reach, self.height)
            return layer(self.rows(low, high))[:, :, first - low : end - low]

        return _Map(self.height, self.width, rows)

    def doubled(self) -> _Map:
        """Make four pixels of each."""

        def rows(first: int, end: int) -> Tensor:
            low, high = first // 2, (end + 1) // 2
            doubled = F.interpolate(self.rows(low, high), scale_factor=2.0, mode="nearest")
            return doubled[:, :, first - 2 * low : end - 2 * low]

        return _Map(2 * self.height, 2 * self.width, rows)

    def store(self, num_parts: int = 1) -> tuple[Tensor, ...]:
        """Compute all rows: so many tensors [1, C, H, W], the channels divided among them."""
        parts: tuple[Tensor, ...] = ()
        for first, end in self.bands():
            chunks = self.rows(first, end).chunk(num_parts, dim=1)
            if not parts:
                sizes = (self.height, self.width)
                parts = tuple(each.new_empty(*each.shape[:2], *sizes) for each in chunks)
            for part, chunk in zip(parts, chunks, strict=True):
                part[:, :, first:end] = chunk
        return parts


def tiled_decode(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    """Decode latents [B, 16, h, w] to [B, 3, H, W] in -1 … 1, one image at a time."""
    placed = latents.to(autoencoder.decoder.conv_in.weight)
    return torch.cat([_decode(autoencoder, one) for one in placed.split(1)])


def _decode(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    decoder = autoencoder.decoder
    if autoencoder.post_quant_conv is not None:
        latents = autoencoder.post_quant_conv(latents)
    channels = _Map.of(decoder.mid_block(decoder.conv_in(latents)))
    blocks = decoder.blocks
    num_upsampled = sum(block.upsample is not None for block in blocks)
    for index, block in enumerate(blocks, start=1):
        for resnet in block.resnet_blocks:
            channels = _Map.of(_resnet(resnet, channels))
        if block.upsample is not None:
            channels = channels.doubled().then(block.upsample.conv, REACH)
            if index < num_upsampled:
                channels = _Map.of(*channels.store())
    activate = _activation(channels, decoder.conv_norm_out)
    (image,) = channels.then(activate).then(decoder.conv_out, REACH).store()
    return image


def _resnet(block: ResnetBlock, channels: _Map) -> Tensor:
    """Compute a block in place: what comes in may be what goes out."""
    activate = _activation(channels, block.norm1)
    if block.conv_shortcut is None:
        (hidden,) = channels.then(activate).then(block.conv1, REACH).store()
        (total,) = channels.store() if channels.stored is None else (channels.stored,)
    else:
        shortcut = block.conv_shortcut

        def both(rows: Tensor) -> Tensor:
            return torch.cat((block.conv1(activate(rows)), shortcut(rows)), dim=1)

        hidden, total = channels.then(both, REACH).store(num_parts=2)
    convolved = _Map.of(hidden)
    activate = _activation(convolved, block.norm2)
    convolved = convolved.then(activate).then(block.conv2, REACH)
    for first, end in convolved.bands():
        total[:, :, first:end].add_(convolved.rows(first, end))
    return total


def _activation(channels: _Map, norm: nn.GroupNorm) -> Layer:
    """Take the norm's statistics over the whole image; give the layer of norm and activation."""
    scale, shift = _scale_and_shift(channels, norm)

    def layer(rows: Tensor) -> Tensor:
        return F.silu(torch.addcmul(shift, rows.float(), scale).to(rows.dtype))

    return layer


def _scale_and_shift(channels: _Map, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Give what the norm multiplies each channel by, and what it adds: [1, C, 1, 1] float32."""
    moments = torch.zeros(2, norm.num_channels, dtype=torch.float64, device=norm.weight.device)
    for first, end in channels.bands():
        band = channels.rows(first, end).float()
        variance, mean = torch.var_mean(band, (0, 2, 3), correction=0)
        share = (end - first) / channels.height
        moments += share * torch.stack((mean.double(), variance.double() + mean.double() ** 2))
    in_groups = moments.unflatten(1, (norm.num_groups, -1)).mean(2, keepdim=True)
    mean, square = in_groups.expand(-1, -1, norm.num_channels // norm.num_groups).flatten(1)
    scale = norm.weight * torch.rsqrt(square - mean**2 + norm.eps)
    shift = norm.bias - mean * scale
    return scale.float()[None, :, None, None], shift.float()[None, :, None, None]
