"""A start picture in, latents on their way to noise out.

Computes what diffusers' FluxImg2ImgPipeline (0.42) computes before its loop. Knows nothing about
prompts or schedules.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from models.flux import latents


@dataclass(frozen=True, slots=True)
class Start:
    """What image-to-image starts from.

    pictures  [B or a part of it] of any mode and size: one for all images, one each, or each for
              as many neighbouring images
    strength  in (0, 1]: the part of the schedule that is run; at 1 nothing of the pictures is left
    """

    pictures: Sequence[Image.Image]
    strength: float


def noisy_latents(
    autoencoder: AutoencoderKL, pixels: Tensor, seeds: Sequence[int], sigma: float
) -> Tensor:
    """Encode pixels [P, 3, H, W] and mix in noise: [B, 16, h, w] float32 on the CPU.

    P divides B, the number of seeds: neighbouring images share a picture. Each image's generator
    draws first the sample of the autoencoder's distribution, then the noise.
    """
    height, width = pixels.shape[-2:]
    encoded = autoencoder.encode(pixels.to(autoencoder.device, autoencoder.dtype)).latent_dist
    generators = latents.generators(seeds)
    sample = latents.draw(generators, width, height)
    mean, std = (
        latents.each(moment.float().cpu(), len(seeds)) for moment in (encoded.mean, encoded.std)
    )
    config = autoencoder.config
    start = (mean + std * sample - config.shift_factor) * config.scaling_factor
    mixed: Tensor = sigma * latents.draw(generators, width, height) + (1.0 - sigma) * start
    return mixed
