"""`triptych generate`: one image in this process, without a server."""

import re
from pathlib import Path

import torch
from tqdm import tqdm

from models.flux.text_to_image import TextToImage
from models.load import load_pipeline
from triptych.errors import DeviceError
from worker.contract.jobs import ImageJob
from worker.image_encoding import encode_image
from worker.image_limits import preset_limits


def paint(job: ImageJob, device: str, output: Path) -> None:
    """Paint with a progress bar and write a PNG that carries its parameters.

    Raises DeviceError for a device that is not there, and ModelsError as `load_pipeline` does.
    """
    _require(device)
    pipeline = load_pipeline(job.model, device=device)
    assert isinstance(pipeline, TextToImage), f"this is a bug: {job.model} does not paint"
    text = pipeline.encode([job.prompt], preset_limits(job.model).max_sequence_length)
    size = (job.width, job.height)
    steps = pipeline.denoise(text, job.seeds, *size, job.num_steps, job.guidance_scale)
    for step in tqdm(steps, total=job.num_steps, desc="denoise", unit="step"):
        patches = step.patches
    output.write_bytes(encode_image(pipeline.decode(patches, *size)[0], job, job.seeds[0]))


def _require(device: str) -> None:
    if re.fullmatch(r"cpu|cuda(:\d+)?", device) is None:
        raise DeviceError(f"device: got {device!r}; allowed: cpu or cuda:N")
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # PyTorch without CUDA asserts
        said = str(error).partition("\n")[0]
        raise DeviceError(f"device: {device!r} is not on this machine: {said}") from error
