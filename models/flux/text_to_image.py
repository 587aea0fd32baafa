"""A prompt in, images out: text encoders, transformer, schedule and autoencoder as one pipeline.

encode -> noise -> sigmas -> denoise -> decode; `generate` does all of it. Knows nothing about jobs.
The numbers are those of diffusers' FluxPipeline and FluxImg2ImgPipeline (0.42).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from models.flux import latents, painting, pixels, sampling
from models.flux.autoencoder import load_autoencoder
from models.flux.backbone import FluxBackbone
from models.flux.formats import lora_files
from models.flux.latents import Start
from models.flux.painting import PaintOptions
from models.flux.parts import load_backbone, load_schedule, streamed_blocks
from models.flux.placement import RESIDENT, Placement
from models.flux.sampling import ClassifierFreeGuidance, Conditioning, DenoiseStep, Schedule
from models.flux.text_encoders import UNGUIDED_T5_TOKENS, TextEncoders, TextFeatures
from models.flux.tiled_decoding import require_tiles, tiled_decode
from models.layers.streaming import BlockStream, move
from models.presets import handles
from models.presets.flux_variants import require_text_to_image


@dataclass(frozen=True, slots=True)
class Negative:
    """What not to paint: true classifier-free guidance with a scale above 1."""

    text: TextFeatures
    true_cfg_scale: float


class TextToImage:
    """Everything that one Flux preset needs to paint, on one device."""

    def __init__(
        self,
        backbone: FluxBackbone,
        text_encoders: TextEncoders,
        autoencoder: AutoencoderKL,
        schedule: Schedule,
        streams: Sequence[BlockStream] = (),
        tile_from: int | None = None,
    ) -> None:
        """Compose; `streams` run blocks of the parts, `tile_from` is that of `Placement`."""
        self.backbone = backbone
        self.text_encoders = text_encoders
        self.autoencoder = autoencoder
        self.schedule = schedule
        self._streams = tuple(streams)
        self._tile_from = tile_from

    @classmethod
    def from_preset(
        cls,
        preset: str | Path,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        placement: Placement = RESIDENT,
    ) -> Self:
        """Load a preset by name, handle or directory.

        A directory is diffusers', or holds the original transformer's file; tokenizers lie as in
        diffusers' layout in both, text encoders may be single files or parts of an all-in-one file.
        `dtype` None keeps the dtype of the files, and means bfloat16 where that is float8.
        `placement` says what shall not lie whole on the device.

        Raises UnknownPresetError for no such preset, DownloadError for one that cannot be fetched,
        PresetFileError for a missing or malformed file, WeightsError for weights that do not fit,
        PresetError for a Flux model of another task and for a placement that does not fit.
        """
        directory = handles.fetch(preset, handles.Part.PIPELINE)
        require_text_to_image(directory)
        # smallest first: what is missing is said before 24 GB are read
        autoencoder = load_autoencoder(directory, device, dtype)
        if placement.tile_from is not None:
            require_tiles(autoencoder)
        text_encoders = TextEncoders.from_directory(
            directory, device, dtype, placement.streams_text_encoder
        )
        backbone = load_backbone(directory, device, dtype, placement)
        schedule = load_schedule(directory, backbone.guidance_embed)
        streams = _stream(backbone, text_encoders, device, placement)
        return cls(backbone, text_encoders, autoencoder, schedule, streams, placement.tile_from)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """What holds the parameters."""
        return (self.backbone, self.text_encoders.clip, self.text_encoders.t5, self.autoencoder)

    def to(self, device: str) -> None:
        """Move everything but streamed blocks, which stay in host memory, and compute there.

        The memory that blocks are streamed through is freed, and made again by the next use.
        """
        for stream in self._streams:
            stream.to(device)
        for module in self.modules:
            move(module, device, self._streams)

    @property
    def has_guidance(self) -> bool:
        """Whether `guidance_scale` has an effect."""
        return self.backbone.guidance_embed

    def generate(
        self,
        prompts: str | Sequence[str],
        options: PaintOptions,
        *,
        negative_prompts: str | Sequence[str] | None = None,
        start_images: Image.Image | Sequence[Image.Image] | None = None,
        num_images_per_prompt: int = 1,
        seeds: int | Sequence[int] | None = None,
    ) -> list[Image.Image]:
        """Paint `num_images_per_prompt` images of every prompt, those of one prompt together.

        Negative prompts and start images are one for all prompts or one per prompt. Every image
        has its own seed, kept in `image.info["seed"]`: a number gives the images that seed, the
        next one and so on, a sequence gives each its own, None draws the first one. One seed gives
        one image, alone and in a batch.

        Raises ValueError for counts that do not match and for arguments that would be ignored.
        """
        texts, negatives = painting.listed(prompts, str), painting.listed(negative_prompts, str)
        starts = painting.listed(start_images, Image.Image)
        painting.check_counts(len(texts), num_images_per_prompt, len(negatives), len(starts))
        painting.check_combination(options, bool(negatives), bool(starts))
        self._check_guidance(options.guidance_scale)
        image_seeds = painting.seed_each(seeds, len(texts) * num_images_per_prompt)
        steps = self.denoise(
            self.encode(texts, options.max_sequence_length),
            image_seeds,
            options.width,
            options.height,
            options.num_steps,
            options.guidance_scale,
            negative=self._negative(negatives, options) if negatives else None,
            start=Start(starts, options.start_strength) if starts else None,
        )
        last = deque(steps, maxlen=1).pop()
        images = self.decode(last.patches, options.width, options.height)
        return list(map(pixels.to_image, images, image_seeds))

    def load_lora(self, file: str | Path, name: str | None = None, scale: float = 1.0) -> None:
        """Paint with a LoRA file from now on, beside those loaded before; `name` None: its own.

        `file` is a safetensors file of diffusers, PEFT, kohya or black-forest-labs, or a directory
        that diffusers or PEFT wrote; what it holds for CLIP counts as well.

        Raises PresetFileError for a missing or malformed file, WeightsError for entries that do not
        fit, ValueError for a name in use and a scale that is not finite. Then nothing has changed.
        """
        name = Path(file).stem if name is None else name
        lora_files.attach(self.backbone, file, name, scale, clip=self.text_encoders.clip)

    @property
    def lora_scales(self) -> dict[str, float]:
        """The LoRAs that are loaded, by name."""
        clip = lora_files.attached(self.text_encoders.clip)
        return clip | lora_files.attached(self.backbone)

    def set_lora_scales(self, scales: Mapping[str, float]) -> None:
        """Let LoRAs count so many times; those not named stay as they are, 0 switches one off.

        Raises ValueError for a name that is not loaded and a scale that is not finite. Then nothing
        has changed.
        """
        previous = self.lora_scales
        try:
            self._set_lora_scales(scales)
        except ValueError:
            self._set_lora_scales(previous)
            raise

    def remove_lora(self, name: str) -> None:
        """Take a LoRA away; raises ValueError for a name that is not loaded."""
        lora_files.detach(self.backbone, name, clip=self.text_encoders.clip)

    def encode(
        self, prompts: Sequence[str], max_sequence_length: int | None = None
    ) -> TextFeatures:
        """Encode prompts, each padded or cut to `max_sequence_length` T5 tokens.

        None means the original's 512, or 256 for a backbone without guidance, as schnell is; fewer
        where the tokenizer reads fewer.

        Raises ValueError for a length that the tokenizer does not read.
        """
        if max_sequence_length is None and not self.has_guidance:
            max_sequence_length = min(UNGUIDED_T5_TOKENS, self.text_encoders.max_tokens)
        return self.text_encoders.encode(prompts, max_sequence_length)

    @torch.inference_mode()
    def denoise(
        self,
        text: TextFeatures,
        seeds: Sequence[int],
        width: int,
        height: int,
        num_steps: int,
        guidance_scale: float | None = None,
        *,
        negative: Negative | None = None,
        start: Start | None = None,
    ) -> Iterator[DenoiseStep]:
        """Paint one image per seed, yielding after every step.

        The rows of `text`, of the negative text and the start images are one for all seeds, one
        per seed, or each for as many neighbouring seeds. Width and height in pixels.

        Raises ValueError for a size that is not a multiple of 16, for rows that do not match, for
        fewer than one step, for a strength outside (0, 1], and for a guidance scale that is missing
        where the backbone embeds one or given where it does not.
        """
        painting.check_size(width, height)
        self._check_guidance(guidance_scale)
        ids = latents.image_ids(width, height)
        strength = 1.0 if start is None else start.strength
        sigmas = self.schedule.sigmas(num_steps, num_patches=ids.shape[1], strength=strength)
        conditioning = self._conditioning(text, len(seeds), guidance_scale)
        classifier_free = None
        if negative is not None:
            steer_from = self._conditioning(negative.text, len(seeds), guidance_scale)
            classifier_free = ClassifierFreeGuidance(steer_from, negative.true_cfg_scale)
        first = self._first_latents(seeds, width, height, start, sigma=float(sigmas[0]))
        patches = latents.patchify(first).to(conditioning.text.device)
        yield from sampling.denoise(
            self.backbone, patches, ids, conditioning, sigmas, classifier_free
        )

    @torch.inference_mode()
    def decode(self, patches: Tensor, width: int, height: int) -> np.ndarray:
        """Turn clean patches [B, S, 64] into images [B, H, W, 3] uint8."""
        config = self.autoencoder.config
        normalised = latents.unpatchify(patches, width, height)
        unscaled = normalised / config.scaling_factor + config.shift_factor
        placed = unscaled.to(self.autoencoder.device, self.autoencoder.dtype)
        if self._tile_from is not None and max(width, height) >= self._tile_from:
            return pixels.to_levels(tiled_decode(self.autoencoder, placed))
        return pixels.to_levels(self.autoencoder.decode(placed).sample)

    def _first_latents(
        self, seeds: Sequence[int], width: int, height: int, start: Start | None, sigma: float
    ) -> Tensor:
        """Noise, or start images with noise up to `sigma`: [B, 16, h, w] on the CPU."""
        if start is None:
            return latents.noise(seeds, width, height)
        painting.check_rows("start images", len(start.images), len(seeds))
        start_pixels = pixels.to_pixels(start.images, width, height)
        return latents.noisy_latents(self.autoencoder, start_pixels, seeds, sigma)

    def _set_lora_scales(self, scales: Mapping[str, float]) -> None:
        for name, scale in scales.items():
            lora_files.set_scale(self.backbone, name, scale, clip=self.text_encoders.clip)

    def _negative(self, prompts: Sequence[str], options: PaintOptions) -> Negative:
        return Negative(self.encode(prompts, options.max_sequence_length), options.true_cfg_scale)

    def _conditioning(
        self, text: TextFeatures, num_images: int, guidance_scale: float | None
    ) -> Conditioning:
        painting.check_rows("prompts", len(text.text), num_images)
        first = self.backbone.img_in.weight  # the features may have been kept in host memory
        return Conditioning(
            text=latents.each(text.text, num_images).to(first),
            pooled=latents.each(text.pooled, num_images).to(first),
            guidance=guidance_scale,
        )

    def _check_guidance(self, guidance_scale: float | None) -> None:
        if self.has_guidance and guidance_scale is None:
            raise ValueError("this preset embeds guidance: guidance_scale is missing")
        if not self.has_guidance and guidance_scale is not None:
            raise ValueError(f"this preset takes no guidance_scale; got {guidance_scale}")


def _stream(
    backbone: FluxBackbone, text_encoders: TextEncoders, device: str, placement: Placement
) -> list[BlockStream]:
    """Let the blocks that a placement left in host memory run on the device."""
    streams = []
    if placement.num_streamed_blocks:
        blocks = streamed_blocks(backbone, placement)
        # a step follows a step; a prompt is encoded once
        streams.append(BlockStream(blocks, device, is_cyclic=True))
    if placement.streams_text_encoder:
        streams.append(BlockStream(text_encoders.t5.encoder.block, device, is_cyclic=False))
    return streams
