"""Files of images: in the format and quality that the job asks for, with what made them."""

import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import get_sampling

from tests.worker.jobs import image_job, with_fields
from worker.contract.jobs import ImageJob, LoraScale, NegativePrompt, OutputFormat, StartImage
from worker.image_encoding import encode_image

FORMATS: list[OutputFormat] = ["png", "jpeg", "webp"]
_GRADIENT = np.linspace(0, 255, 48, dtype=np.uint8)
PIXELS = np.stack(
    [np.tile(_GRADIENT, (32, 1)), np.tile(_GRADIENT[::-1], (32, 1)), np.full((32, 48), 90)], axis=-1
).astype(np.uint8)


def encoded(job: ImageJob, pixels: np.ndarray = PIXELS) -> Image.Image:
    return Image.open(io.BytesIO(encode_image(pixels, job, seed=7)))


def parameters_of(image: Image.Image) -> dict[str, object]:
    description = ExifTags.Base.ImageDescription
    text = image.info["parameters"] if image.format == "PNG" else image.getexif()[description]
    parameters: dict[str, object] = json.loads(text)
    return parameters


@pytest.mark.parametrize("output_format", FORMATS)
def test_an_image_has_the_format_that_was_asked_for(output_format: OutputFormat) -> None:
    image = encoded(with_fields(image_job(), output_format=output_format))
    assert (image.format, image.mode, image.size) == (output_format.upper(), "RGB", (48, 32))
    largest_error = np.abs(np.asarray(image, int) - PIXELS).max()
    assert largest_error <= (0 if output_format == "png" else 8)


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_less_quality_makes_a_smaller_file(output_format: OutputFormat) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sizes = [
        len(encode_image(noise, with_fields(job, output_compression=quality), seed=1))
        for job in [with_fields(image_job(), output_format=output_format)]
        for quality in (0, 40, 80, 100)
    ]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize(("quality", "sampling"), [(89, (4, 2, 0)), (90, (4, 4, 4))])
def test_a_jpeg_of_high_quality_has_all_of_its_colour(
    quality: int, sampling: tuple[int, int, int]
) -> None:
    job = with_fields(image_job(), output_format="jpeg", output_compression=quality)
    numbers = {0: (4, 4, 4), 1: (4, 2, 2), 2: (4, 2, 0)}
    assert numbers[get_sampling(encoded(job))] == sampling


@pytest.mark.parametrize("output_format", FORMATS)
def test_an_image_says_what_made_it(output_format: OutputFormat) -> None:
    job = with_fields(
        image_job("ein Käse 🧀"),
        output_format=output_format,
        loras=(LoraScale(name="ink", scale=0.5),),
        negative=NegativePrompt(prompt="blur", true_cfg_scale=2.0),
        start=StartImage(file_name="job_1.start", strength=0.4),
        max_sequence_length=16,
        flow_shift=3.0,
    )
    assert parameters_of(encoded(job)) == {
        "model": job.model,
        "prompt": "ein Käse 🧀",
        "seed": 7,
        "width": job.width,
        "height": job.height,
        "num_inference_steps": job.num_steps,
        "guidance_scale": job.guidance_scale,
        "job": job.id,
        "loras": [{"name": "ink", "scale": 0.5}],
        "negative_prompt": "blur",
        "true_cfg_scale": 2.0,
        "strength": 0.4,
        "max_sequence_length": 16,
        "flow_shift": 3.0,
    }


@pytest.mark.parametrize(
    ("output_format", "is_kept"), [("png", True), ("jpeg", False), ("webp", True)]
)
def test_only_a_jpeg_goes_without_a_prompt_that_it_has_no_room_for(
    output_format: OutputFormat, is_kept: bool
) -> None:
    parameters = parameters_of(
        encoded(with_fields(image_job("🧀" * 32_000), output_format=output_format))
    )
    assert ("prompt" in parameters) == is_kept
    assert parameters["seed"] == 7
