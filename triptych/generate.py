"""`triptych generate`: one picture in this process, without a server."""

import io
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from models.flux.text_to_image import TextToImage
from models.load import load_pipeline
from models.presets import ImageLimits, get_preset
from worker.contract.jobs import ImageJob, new_job_id
from worker.images import encode_png


@dataclass(frozen=True, slots=True)
class Wish:
    """What to paint; None leaves a choice to the preset, or to chance for the seed."""

    prompt: str
    model: str
    width: int | None
    height: int | None
    num_steps: int | None
    seed: int | None
    device: str


def paint(wish: Wish, output: Path) -> None:
    """Paint with a progress bar and write a PNG that carries its parameters."""
    limits = get_preset(wish.model).image_limits
    if limits is None:
        raise ValueError(f"model {wish.model} does not paint")
    job = to_job(wish, limits)
    pipeline = load_pipeline(wish.model, device=wish.device)
    if not isinstance(pipeline, TextToImage):
        raise TypeError(f"{wish.model} has image limits but no text-to-image pipeline; a bug")
    steps = pipeline.denoise(
        pipeline.encode([job.prompt]),
        job.seeds,
        job.width,
        job.height,
        job.num_steps,
        job.guidance_scale,
    )
    for step in tqdm(steps, total=job.num_steps, desc="denoise", unit="step"):
        patches = step.patches
    pixels = pipeline.decode(patches, job.width, job.height)[0]
    Image.open(io.BytesIO(png := encode_png(pixels, job, job.seeds[0]))).verify()
    output.write_bytes(png)


def to_job(wish: Wish, limits: ImageLimits) -> ImageJob:
    return ImageJob(
        id=new_job_id(),
        model=wish.model,
        created_at=time.time(),
        prompt=wish.prompt,
        seeds=(secrets.randbits(32) if wish.seed is None else wish.seed,),
        width=wish.width or limits.default_width,
        height=wish.height or limits.default_height,
        num_steps=wish.num_steps or limits.default_num_steps,
        guidance_scale=limits.default_guidance_scale,
    )
