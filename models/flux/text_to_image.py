"""A prompt in, images out: text encoders, transformer, schedule and autoencoder as one pipeline.

encode -> noise -> sigmas -> denoise -> decode; `generate` does all of it. Who decides after each
step which images make the next one, gives `step` rows that `begin` made. Knows nothing about jobs.
The numbers are those of diffusers' FluxPipeline and FluxImg2ImgPipeline (0.42).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.execution.block_cache import BlockCache
from models.execution.execution import Execution
from models.flux import conditioning, executing, latents, painting, pixels
from models.flux.autoencoder import Autoencoder
from models.flux.backbone import FluxBackbone
from models.flux.conditioning import ClassifierFreeGuidance, Conditioning
from models.flux.formats.autoencoder_files import load_autoencoder
from models.flux.latents import Start
from models.flux.loras import LoadedLoras
from models.flux.painting import PaintOptions
from models.flux.parts import load_backbone, load_schedule, streamed_blocks
from models.flux.placement import RESIDENT, Placement
from models.flux.previews import PreviewMap
from models.flux.rows import PaintRow, step_rows
from models.flux.sampling import DenoiseStep, Schedule
from models.flux.text_encoders import UNGUIDED_T5_TOKENS, TextEncoders, TextFeatures
from models.flux.tiled_decoding import tiled_decode
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
        autoencoder: Autoencoder,
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
        self._loras = LoadedLoras(backbone, text_encoders.clip)
        self._cache_threshold: float | None = None

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

    def pack(self, dtype: torch.dtype) -> None:
        """Lay the transformer's weights out for the CPU's products: see the backbone's.

        Of float32, resident and eager; in bfloat16 an image stays the same alone and in company
        (within 1 of 255 levels), which a pipeline loaded as bfloat16 does not hold.
        """
        self.backbone.pack(dtype)

    def execute(self, execution: Execution, compile_backend: str = "inductor") -> None:
        """Paint by these levers from now on; those that cannot be had are logged and left out.

        Once, on the device and with the LoRAs with which it is to paint.
        """
        executing.turn_on(
            self.backbone, self.autoencoder, self._example_step, execution, compile_backend
        )
        has_loras = bool(self._loras.of_backbone)
        self._cache_threshold = executing.block_cache(self.backbone, execution, has_loras)

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
            flow_shift=options.flow_shift,
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
        self._loras.load(file, name, scale)

    @property
    def lora_scales(self) -> dict[str, float]:
        """The LoRAs that are loaded, by name."""
        return self._loras.scales

    def set_lora_scales(self, scales: Mapping[str, float]) -> None:
        """Let LoRAs count so many times; those not named stay as they are, 0 switches one off.

        Raises ValueError for a name that is not loaded and a scale that is not finite. Then nothing
        has changed.
        """
        self._loras.set_scales(scales)

    def remove_lora(self, name: str) -> None:
        """Take a LoRA away; raises ValueError for a name that is not loaded."""
        self._loras.remove(name)

    def encode(
        self,
        prompts: Sequence[str],
        max_sequence_length: int | None = None,
        loras: Mapping[str, float] | None = None,
    ) -> TextFeatures:
        """Encode prompts, each padded or cut to `max_sequence_length` T5 tokens.

        None means the original's 512, or 256 for a backbone without guidance, as schnell is; fewer
        where the tokenizer reads fewer. `loras` are the scales of those that count for CLIP, None
        as they are set. One thread may encode while another takes steps: no other part is touched.

        Raises ValueError for a length that the tokenizer does not read, and for a LoRA as
        `set_lora_scales` does.
        """
        if max_sequence_length is None and not self.has_guidance:
            max_sequence_length = min(UNGUIDED_T5_TOKENS, self.text_encoders.max_tokens)
        with self._loras.reading_with(self._loras.counting(loras), len(prompts)):
            return self.text_encoders.encode(prompts, max_sequence_length)

    @torch.inference_mode()
    def begin(
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
        flow_shift: float | None = None,
        loras: Mapping[str, float] | None = None,
    ) -> list[PaintRow]:
        """Make one row per seed, for `step` to paint; what is the same for all rows, they share.

        Takes what `denoise` takes. `loras` are the scales of those that count for the transformer,
        None as they are set. One thread may begin rows while another takes steps. On CUDA the work
        is on the current stream.

        Raises ValueError as `denoise` does, and for a LoRA as `set_lora_scales` does.
        """
        painting.check_size(width, height)
        self._check_guidance(guidance_scale)
        counting = self._loras.counting(loras)
        prompts = self._conditioning(text, len(seeds))
        classifier_free = self._classifier_free(negative, prompts)
        rotations = self._rotations(width, height, text.text.shape[1])
        strength = 1.0 if start is None else start.strength
        num_patches = latents.num_patches(width, height)
        sigmas = self.schedule.sigmas(num_steps, num_patches, strength, flow_shift).tolist()
        first = self._first_latents(seeds, width, height, start, sigma=sigmas[0])
        patches = latents.patchify(first).to(rotations.device)
        return [
            PaintRow(
                width=width,
                height=height,
                sigmas=sigmas,
                conditioning=prompts[index],
                guidance=guidance_scale,
                classifier_free=classifier_free[index],
                loras=counting,
                rotations=rotations,
                patches=row_patches,
                caches=self._new_caches(classifier_free[index]),
            )
            for index, row_patches in enumerate(patches)
        ]

    def step(self, rows: Sequence[PaintRow]) -> None:
        """Take each row one step further, all in one forward; a negative prompt takes two places.

        Rows may differ in all but their number of patches and of text tokens. A row's image is the
        same alone and in company.

        Raises ValueError for no rows, for a row that is done, and for rows that differ in those
        numbers. Then no row has changed.
        """
        step_rows(self.backbone, rows, self._loras.of_backbone)

    @torch.inference_mode()
    def preview(self, row: PaintRow) -> np.ndarray:
        """Give a small picture of what a row is on its way to: [H/8, W/8, 3] uint8.

        The first one of a pipeline runs the autoencoder's encoder, to find what colours are.

        Raises ValueError before the row's first step.
        """
        clean = latents.unpatchify(row.clean_patches()[None], row.width, row.height)
        picture: np.ndarray = self._preview_map.picture(clean)[0]
        return picture

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
        flow_shift: float | None = None,
    ) -> Iterator[DenoiseStep]:
        """Paint one image per seed, yielding after every step.

        The rows of `text`, of the negative text and the start images are one for all seeds, one
        per seed, or each for as many neighbouring seeds. Width and height in pixels. `flow_shift`
        is that of `Schedule.sigmas`.

        Raises ValueError for a size that is not a multiple of 16, for rows that do not match, for
        fewer than one step, for a strength outside (0, 1], for a flow shift that is not above 0,
        and for a guidance scale that is missing where the backbone embeds one or given where it
        does not.
        """
        begun = self.begin(
            text,
            seeds,
            width,
            height,
            num_steps,
            guidance_scale,
            negative=negative,
            start=start,
            flow_shift=flow_shift,
        )
        first = begun[0]
        while not first.is_done:
            self.step(begun)
            patches = torch.stack([row.patches for row in begun])
            yield DenoiseStep(first.step, first.num_steps, first.sigma, patches)

    @torch.inference_mode()
    def decode(self, patches: Tensor, width: int, height: int) -> np.ndarray:
        """Turn clean patches [B, S, 64] into images [B, H, W, 3] uint8."""
        config = self.autoencoder.config
        normalised = latents.unpatchify(patches, width, height)
        unscaled = normalised / config.scaling_factor + config.shift_factor
        if self._tile_from is not None and max(width, height) >= self._tile_from:
            return pixels.to_levels(tiled_decode(self.autoencoder, unscaled))
        return pixels.to_levels(self.autoencoder.decode(unscaled))

    def _example_step(self, num_rows: int) -> Tensor:
        """Take a step of images that nobody sees: velocities [B, S, 64]."""
        length = 512 if self.has_guidance else UNGUIDED_T5_TOKENS
        length = min(length, self.text_encoders.max_tokens)
        like, backbone = self.backbone.img_in.weight, self.backbone
        text = TextFeatures(
            text=like.new_zeros(num_rows, length, backbone.txt_in.in_features),
            pooled=like.new_zeros(num_rows, backbone.vector_in.in_layer.in_features),
            num_tokens=(length,) * num_rows,
            truncated=(False,) * num_rows,
        )
        guidance_scale = executing.EXAMPLE_GUIDANCE if self.has_guidance else None
        size = (executing.EXAMPLE_SIDE, executing.EXAMPLE_SIDE)
        rows = self.begin(text, range(num_rows), *size, 1, guidance_scale, loras={})
        self.step(rows)
        return torch.stack([row.patches for row in rows])

    def _new_caches(self, classifier_free: ClassifierFreeGuidance | None) -> list[BlockCache]:
        if self._cache_threshold is None or self._loras.of_backbone:
            return []
        num_places = 1 if classifier_free is None else 2
        return [BlockCache(self._cache_threshold) for _ in range(num_places)]

    def _first_latents(
        self, seeds: Sequence[int], width: int, height: int, start: Start | None, sigma: float
    ) -> Tensor:
        """Noise, or start images with noise up to `sigma`: [B, 16, h, w] on the CPU."""
        if start is None:
            return latents.noise(seeds, width, height)
        painting.check_rows("start images", len(start.images), len(seeds))
        start_pixels = pixels.to_pixels(start.images, width, height)
        return latents.noisy_latents(self.autoencoder, start_pixels, seeds, sigma)

    @cached_property
    def _preview_map(self) -> PreviewMap:
        return PreviewMap.fit(self.autoencoder)

    def _negative(self, prompts: Sequence[str], options: PaintOptions) -> Negative:
        return Negative(self.encode(prompts, options.max_sequence_length), options.true_cfg_scale)

    def _rotations(self, width: int, height: int, num_text_tokens: int) -> Tensor:
        image_ids = latents.image_ids(width, height).to(self.backbone.img_in.weight.device)
        text_ids = image_ids.new_zeros(1, num_text_tokens, image_ids.shape[-1])
        return self.backbone.rotations(image_ids, text_ids)[0]

    def _conditioning(self, text: TextFeatures, num_images: int) -> list[Conditioning]:
        return conditioning.spread(text, num_images, beside=self.backbone.img_in.weight)

    def _classifier_free(
        self, negative: Negative | None, prompts: Sequence[Conditioning]
    ) -> list[ClassifierFreeGuidance | None]:
        if negative is None:
            return [None] * len(prompts)
        negatives = self._conditioning(negative.text, len(prompts))
        conditioning.check_lengths(prompts, negatives)
        return [ClassifierFreeGuidance(each, negative.true_cfg_scale) for each in negatives]

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
        streams.append(BlockStream(text_encoders.t5.blocks, device, is_cyclic=False))
    return streams
