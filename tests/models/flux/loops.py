"""Our denoise loop and diffusers', run on the same prompts, seeds and start images."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxImg2ImgPipeline, FluxPipeline
from PIL import Image
from torch import Tensor

from models.flux.latents import Start
from models.flux.text_to_image import Negative, TextToImage

Pipelines = dict[str, tuple[FluxPipeline, Path]]
PROMPT = "a large red circle on a white background at the left"
PROMPTS = [PROMPT, "a small green star"]
UNWANTED = "a blue square"
NUM_STEPS = 5
SIZE = (96, 64)


def guidance_of(pipeline: TextToImage) -> float | None:
    return 3.5 if pipeline.has_guidance else None


def last_patches(
    pipeline: TextToImage,
    seeds: Sequence[int],
    prompts: Sequence[str] = (PROMPT,),
    *,
    size: tuple[int, int] = SIZE,
    max_sequence_length: int | None = None,
    negative: Negative | None = None,
    start: Start | None = None,
    flow_shift: float | None = None,
) -> Tensor:
    steps = pipeline.denoise(
        pipeline.encode(prompts, max_sequence_length),
        seeds,
        *size,
        NUM_STEPS,
        guidance_of(pipeline),
        negative=negative,
        start=start,
        flow_shift=flow_shift,
    )
    return deque(steps, maxlen=1).pop().patches


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def expected_patches(
    oracle: FluxPipeline, seeds: Sequence[int], size: tuple[int, int] = SIZE, **arguments: object
) -> Tensor:
    patches: Tensor = oracle(
        width=size[0],
        height=size[1],
        num_inference_steps=NUM_STEPS,
        guidance_scale=3.5,
        generator=generators(seeds),
        output_type="latent",
        **{"prompt": PROMPT, "max_sequence_length": 48} | arguments,
    ).images
    return patches


def image_to_image_oracle(oracle: FluxPipeline) -> FluxImg2ImgPipeline:
    pipeline = FluxImg2ImgPipeline(**oracle.components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def shifted_oracle(oracle: FluxPipeline, shift: float) -> FluxPipeline:
    """The same pipeline with a static shift."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    pipeline = FluxPipeline(**oracle.components | {"scheduler": scheduler})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def start_image(seed: int, width: int = 80, height: int = 50) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width * 2, height * 2))
