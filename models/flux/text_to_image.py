"""A prompt in, pictures out: text encoders, transformer, schedule and autoencoder as one pipeline.

encode -> noise -> sigmas -> denoise -> decode. Knows nothing about jobs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor

from models.flux import latents, sampling
from models.flux.backbone import FluxBackbone
from models.flux.diffusers_directory import load_autoencoder, load_backbone, load_schedule
from models.flux.sampling import Conditioning, DenoiseStep
from models.flux.schedule import Schedule
from models.flux.text_encoders import TextEncoders, TextFeatures


class TextToImage:
    """Everything that one Flux preset needs to paint, on one device."""

    def __init__(
        self,
        backbone: FluxBackbone,
        text_encoders: TextEncoders,
        autoencoder: AutoencoderKL,
        schedule: Schedule,
    ) -> None:
        self.backbone = backbone
        self.text_encoders = text_encoders
        self.autoencoder = autoencoder
        self.schedule = schedule

    @classmethod
    def from_directory(
        cls, directory: Path, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> Self:
        """Load a diffusers Flux directory; `dtype` None keeps the dtype of its files.

        Raises PresetFileError for a missing or malformed file, WeightsError for weights that do
        not fit.
        """
        return cls(
            load_backbone(directory, device, dtype),
            TextEncoders.from_directory(directory, device, dtype),
            load_autoencoder(directory, device, dtype),
            load_schedule(directory),
        )

    @property
    def has_guidance(self) -> bool:
        """Whether `guidance_scale` has an effect."""
        return self.backbone.guidance_embed

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        return self.text_encoders.encode(prompts)

    @torch.inference_mode()
    def denoise(
        self,
        text: TextFeatures,
        seeds: Sequence[int],
        width: int,
        height: int,
        num_steps: int,
        guidance_scale: float | None = None,
    ) -> Iterator[DenoiseStep]:
        """Paint one picture per seed, yielding after every step.

        `text` has one row, used for all, or one per seed. Width and height in pixels.

        Raises ValueError for a size that is not a multiple of 16, for rows that do not match, and
        for a guidance scale that is missing where the backbone embeds one or given where it does
        not.
        """
        self._check(text, seeds, width, height, guidance_scale)
        patches = latents.patchify(latents.noise(seeds, width, height)).to(text.text.device)
        dtype = self.backbone.img_in.weight.dtype
        conditioning = Conditioning(
            text=text.text.expand(len(seeds), -1, -1).to(dtype),
            pooled=text.pooled.expand(len(seeds), -1).to(dtype),
            guidance=guidance_scale,
        )
        sigmas = self.schedule.sigmas(num_steps, num_patches=patches.shape[1])
        ids = latents.image_ids(width, height)
        yield from sampling.denoise(self.backbone, patches, ids, conditioning, sigmas)

    @torch.inference_mode()
    def decode(self, patches: Tensor, width: int, height: int) -> np.ndarray:
        """Turn clean patches [B, S, 64] into pictures [B, H, W, 3] uint8."""
        config = self.autoencoder.config
        normalised = latents.unpatchify(patches, width, height)
        unscaled = normalised / config.scaling_factor + config.shift_factor
        pictures = self.autoencoder.decode(unscaled.to(self.autoencoder.dtype)).sample
        levels = ((pictures.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        pixels: np.ndarray = rearrange(levels, "B C H W -> B H W C").cpu().numpy()
        return pixels

    def _check(
        self,
        text: TextFeatures,
        seeds: Sequence[int],
        width: int,
        height: int,
        guidance_scale: float | None,
    ) -> None:
        for side, pixels in (("width", width), ("height", height)):
            if pixels <= 0 or pixels % latents.PIXELS_PER_PATCH:
                raise ValueError(f"{side} {pixels} is not a multiple of {latents.PIXELS_PER_PATCH}")
        if len(text.text) not in (1, len(seeds)):
            raise ValueError(f"{len(text.text)} prompts do not go with {len(seeds)} seeds")
        if self.has_guidance and guidance_scale is None:
            raise ValueError("this preset embeds guidance: guidance_scale is missing")
        if not self.has_guidance and guidance_scale is not None:
            raise ValueError(f"this preset takes no guidance_scale; got {guidance_scale}")
