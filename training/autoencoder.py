"""Train the 16-channel, 8x autoencoder of `flux_shapes`.

It has no attention, so it is trained on crops and used at any size. The latents are made as the
Flux pipeline expects them: after `(z - shift) * scaling` each channel has unit spread.
"""

import logging
import random
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

from training.pictures import draw_scenes, render_pool

logger = logging.getLogger(__name__)

SCALING_FACTOR = 0.3611  # FLUX.1's own values, kept so that the loading code has one rule
SHIFT_FACTOR = 0.1159
LATENT_NOISE = (
    0.15  # relative to the latents' spread: the decoder forgives what the denoiser misses
)
CROP = 64


def build_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=128,
        scaling_factor=SCALING_FACTOR,
        shift_factor=SHIFT_FACTOR,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def train_autoencoder(directory: Path, num_steps: int, batch_size: int, side: int) -> None:
    """Train and save to `directory` in diffusers' format."""
    rng = random.Random(1)
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    pictures = render_pool(draw_scenes(6000, rng), side, rng)  # [N, 3, H, W] uint8
    model = build_autoencoder().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2.5e-3, total_steps=num_steps, pct_start=0.08
    )
    started = time.monotonic()
    for step in (bar := trange(num_steps, desc="autoencoder")):
        # The last tenth sees whole pictures, so that group norm meets the statistics of real use.
        crop = CROP if step < 0.9 * num_steps else side
        batch = _crops(pictures, crop, batch_size * CROP * CROP // (crop * crop), generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mean = model.encoder(batch).chunk(2, dim=1)[0].float()  # [B, 16, h, w]
            spread = mean.std(dim=(0, 2, 3), keepdim=True)
            noise = torch.randn(mean.shape, generator=generator) * spread.detach() * LATENT_NOISE
            restored = model.decoder(mean + noise).float()
        unit = (mean.mean(dim=(0, 2, 3)) ** 2 + (spread - 1) ** 2).mean()
        error = (restored - batch).abs()
        loss = error.mean() + 2.0 * (error**2).mean() + 0.01 * unit
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(l1=f"{error.mean().item():.4f}", unit=f"{unit.item():.3f}", refresh=False)
        if step % 100 == 99:
            logger.info(
                "autoencoder step=%d l1=%.4f elapsed_s=%.0f",
                step + 1,
                error.mean().item(),
                time.monotonic() - started,
            )
    model.eval()
    with torch.no_grad():
        _normalise_latents(model, _crops(pictures, side, 256, generator))
    model.save_pretrained(directory)


def _crops(pictures: Tensor, crop: int, count: int, generator: torch.Generator) -> Tensor:
    """Cut `count` random squares, float in [-1, 1], [B, 3, crop, crop]."""
    side = pictures.shape[-1]
    rows = torch.randint(len(pictures), (count,), generator=generator)
    tops = torch.randint(side - crop + 1, (count, 2), generator=generator)
    squares = [
        pictures[i, :, y : y + crop, x : x + crop]
        for i, (y, x) in zip(rows.tolist(), tops.tolist(), strict=True)
    ]
    batch = torch.stack(squares).float() / 127.5 - 1.0
    return batch.to(memory_format=torch.channels_last)


def _normalise_latents(model: AutoencoderKL, batch: Tensor) -> None:
    """Fold a scale per channel into the two convolutions that meet at the latents.

    The spread of every channel becomes 1 / SCALING_FACTOR; the pictures are unchanged. The log
    variance becomes the constant that the decoder was trained to forgive.
    """
    mean = model.encoder(batch).chunk(2, dim=1)[0]
    factor = 1.0 / (SCALING_FACTOR * mean.std(dim=(0, 2, 3)))  # [16]
    out, into = model.encoder.conv_out, model.decoder.conv_in
    channels = len(factor)
    out.weight[:channels] *= factor[:, None, None, None]
    out.bias[:channels] *= factor
    out.weight[channels:] = 0.0
    out.bias[channels:] = 2.0 * torch.log(torch.tensor(LATENT_NOISE / SCALING_FACTOR))
    into.weight /= factor[None, :, None, None]
    restored = model.decoder(model.encoder(batch).chunk(2, dim=1)[0])
    logger.info("autoencoder l1_whole=%.4f", F.l1_loss(restored, batch).item())
