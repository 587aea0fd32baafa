"""From an image's pixels to its file, which says what made it.

PNG by our own encoder, JPEG and WebP by Pillow. Knows nothing of where files lie.
"""

import json
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image

from worker import png
from worker.contract.jobs import ImageJob

_WHOLE_COLOUR_FROM = 90  # of JPEG's qualities; below, colour has half of the sides' pixels
# of a JPEG's marker, which holds all of its EXIF (https://www.w3.org/Graphics/JPEG/itu-t81.pdf,
# B.1.1.4); with room for EXIF's own structure
_MAX_JPEG_TEXT_BYTES = 65_000


def encode_image(pixels: np.ndarray, job: ImageJob, seed: int) -> bytes:
    """Encode [H, W, 3] uint8 as the job asks for, with what made it as JSON.

    PNG has it in the text chunk `parameters`, JPEG and WebP as EXIF's ImageDescription. There is no
    room for prompts of tens of thousands of characters in a JPEG: those are left out.
    """
    parameters = _parameters(job, seed)
    match job.output_format:
        case "png":
            return png.encode(pixels, {"parameters": json.dumps(parameters)})
        case "jpeg":
            return _encode_jpeg(pixels, job.output_compression, parameters)
        case "webp":
            return _encode_webp(pixels, job.output_compression, json.dumps(parameters))


def _encode_jpeg(pixels: np.ndarray, quality: int, parameters: dict[str, object]) -> bytes:
    text = json.dumps(parameters)
    if len(text) > _MAX_JPEG_TEXT_BYTES:
        without = {"prompt", "negative_prompt"}
        text = json.dumps({name: v for name, v in parameters.items() if name not in without})
    subsampling = "4:4:4" if quality >= _WHOLE_COLOUR_FROM else "4:2:0"
    buffer = BytesIO()
    image = Image.fromarray(pixels)
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling, exif=_exif(text))
    return buffer.getvalue()


def _encode_webp(pixels: np.ndarray, quality: int, text: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, exif=_exif(text))
    return buffer.getvalue()


def _exif(text: str) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = text
    return exif


def _parameters(job: ImageJob, seed: int) -> dict[str, object]:
    parameters: dict[str, object] = {
        "model": job.model,
        "prompt": job.prompt,
        "seed": seed,
        "width": job.width,
        "height": job.height,
        "num_inference_steps": job.num_steps,
        "guidance_scale": job.guidance_scale,
        "job": job.id,
    }
    if job.loras:
        parameters["loras"] = [lora.model_dump() for lora in job.loras]
    if job.negative is not None:
        parameters["negative_prompt"] = job.negative.prompt
        parameters["true_cfg_scale"] = job.negative.true_cfg_scale
    if job.start is not None:
        parameters["strength"] = job.start.strength
    if job.max_sequence_length is not None:
        parameters["max_sequence_length"] = job.max_sequence_length
    if job.flow_shift is not None:
        parameters["flow_shift"] = job.flow_shift
    return parameters
