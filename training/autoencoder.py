"""Train the 16-channel, 8x autoencoder of `flux_shapes`.

It has no attention, so it is trained on crops and used at any size. The latents are made as the
Flux pipeline expects them: after `(z - shift) * scaling` each channel has unit spread.
"""

import logging
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from training.renderings import draw_scenes, render_pool
from training.run import Run, train

logger = logging.getLogger(__name__)

SCALING_FACTOR = 0.3611  # FLUX.1's own values, kept so that the loading code has one rule
SHIFT_FACTOR = 0.1159
LATENT_NOISE = (
    0.15  # relative to the latents' spread: the decoder forgives what the denoiser misses
)
CROP = 64
NUM_CANDIDATES = 3  # windows for a crop: the liveliest is taken, as most of an image is plain
WHOLE_SHARE = 0.1  # of the steps, at the end: group norm meets the statistics of real use
NUM_IMAGES = 4000
BATCH_SIZE = 24
SHARPENING_BATCH_SIZE = 8  # whole images


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


def train_autoencoder(model: AutoencoderKL, run: Run, side: int, directory: Path) -> None:
    """Train `model` and save it to `directory` in diffusers' format."""
    rng = random.Random(1)
    images = render_pool(draw_scenes(NUM_IMAGES, rng), side, rng)  # [N, 3, H, W] uint8
    model.train().to(memory_format=torch.channels_last)

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        is_whole = step >= (1 - WHOLE_SHARE) * run.num_steps
        crop = side if is_whole else CROP
        batch = _crops(images, crop, BATCH_SIZE * CROP * CROP // (crop * crop), generator)
        return _restoration_loss(model, batch, generator)

    train(run, model, loss_at)
    model.eval()
    with torch.no_grad():
        _normalise_latents(model, _crops(images, side, 256, torch.Generator().manual_seed(1)))
    model.save_pretrained(directory)


def sharpen_decoder(
    model: AutoencoderKL, latents: Tensor, images: Tensor, run: Run, directory: Path
) -> None:
    """Train the decoder alone, on whole images, and save the model to `directory`.

    latents   [N, 16, h, w] float16  normalised, of `images`; the encoder stays as it is
    images  [N, 3, H, W] uint8
    """
    decoder = model.decoder.train().to(memory_format=torch.channels_last)

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(len(latents), (SHARPENING_BATCH_SIZE,), generator=generator)
        noise = torch.randn((len(rows), *latents.shape[1:]), generator=generator)
        share = torch.rand(len(rows), 1, 1, 1, generator=generator) * LATENT_NOISE
        noisy = latents[rows].float() + share * noise
        error = decoder(noisy / SCALING_FACTOR + SHIFT_FACTOR) - (images[rows] / 127.5 - 1.0)
        loss: Tensor = error.abs().mean() + 2.0 * error.square().mean()
        return loss

    train(run, decoder, loss_at)
    model.eval().save_pretrained(directory)


@torch.inference_mode()
def encode_images(autoencoder: AutoencoderKL, images: Tensor) -> Tensor:
    """Encode images [N, 3, H, W] uint8 to normalised latents [N, 16, h, w] float16."""
    encoder = autoencoder.encoder.eval().to(memory_format=torch.channels_last)
    latents = []
    for batch in tqdm(images.split(32), desc="latents"):
        pixels = (batch.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
        mean = encoder(pixels).chunk(2, dim=1)[0]
        latents.append(((mean - SHIFT_FACTOR) * SCALING_FACTOR).half().contiguous())
    return torch.cat(latents)


def _restoration_loss(model: AutoencoderKL, batch: Tensor, generator: torch.Generator) -> Tensor:
    mean = model.encoder(batch).chunk(2, dim=1)[0]  # [B, 16, h, w]
    spread = mean.std(dim=(0, 2, 3), keepdim=True)
    noise = torch.randn(mean.shape, generator=generator) * spread.detach() * LATENT_NOISE
    error = (model.decoder(mean + noise) - batch).abs()
    unit = (mean.mean(dim=(0, 2, 3)) ** 2 + (spread - 1) ** 2).mean()
    loss: Tensor = error.mean() + 2.0 * (error**2).mean() + 0.01 * unit
    return loss


def _crops(images: Tensor, crop: int, count: int, generator: torch.Generator) -> Tensor:
    """Cut `count` squares at random, float in [-1, 1], [B, 3, crop, crop]."""
    side = images.shape[-1]
    rows = torch.randint(len(images), (count,), generator=generator).tolist()
    corners = torch.randint(side - crop + 1, (count, NUM_CANDIDATES, 2), generator=generator)
    squares = []
    for row, candidates in zip(rows, corners.tolist(), strict=True):
        windows = [images[row, :, y : y + crop, x : x + crop].float() for y, x in candidates]
        squares.append(max(windows, key=lambda window: window.std(dim=(1, 2)).sum().item()))
    batch = torch.stack(squares) / 127.5 - 1.0
    return batch.to(memory_format=torch.channels_last)


def _normalise_latents(model: AutoencoderKL, batch: Tensor) -> None:
    """Fold a scale per channel into the two convolutions that meet at the latents.

    The spread of every channel becomes 1 / SCALING_FACTOR; the images are unchanged. The log
    variance becomes the constant that the decoder was trained to forgive.
    """
    mean = torch.cat([model.encoder(part).chunk(2, dim=1)[0] for part in batch.split(32)])
    factor = 1.0 / (SCALING_FACTOR * mean.std(dim=(0, 2, 3)))  # [16]
    out, into = model.encoder.conv_out, model.decoder.conv_in
    channels = len(factor)
    out.weight[:channels] *= factor[:, None, None, None]
    out.bias[:channels] *= factor
    out.weight[channels:] = 0.0
    out.bias[channels:] = 2.0 * torch.log(torch.tensor(LATENT_NOISE / SCALING_FACTOR))
    into.weight /= factor[None, :, None, None]
    restored = model.decoder(model.encoder(batch[:32]).chunk(2, dim=1)[0])
    logger.info("autoencoder l1_whole=%.4f", F.l1_loss(restored, batch[:32]).item())
