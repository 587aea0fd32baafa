"""The bundled `flux_shapes`: a directory that diffusers reads too, painting the same image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from models.flux.painting import PaintOptions
from models.flux.text_to_image import TextToImage
from models.layers.onednn import multiplies
from models.load import load_pipeline
from models.presets import get_preset

PROMPT = "a large red circle on a white background at the left"


def test_diffusers_paints_the_same_latents_from_the_bundled_directory() -> None:
    oracle = FluxPipeline.from_pretrained(get_preset("flux_shapes").handle, low_cpu_mem_usage=False)
    oracle.set_progress_bar_config(disable=True)
    expected = oracle(
        PROMPT,
        width=128,
        height=128,
        num_inference_steps=8,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(1),
        max_sequence_length=48,
        output_type="latent",
    ).images

    pipeline = load_pipeline("flux_shapes")
    assert isinstance(pipeline, TextToImage)
    *_, last = pipeline.denoise(pipeline.encode([PROMPT]), [1], 128, 128, 8, 2.0)

    torch.testing.assert_close(last.patches, expected, atol=2e-5, rtol=0)


@pytest.mark.skipif(not multiplies(torch.bfloat16), reason="no products in bfloat16 here")
def test_products_in_bfloat16_paint_what_float32_paints() -> None:
    options = PaintOptions(width=128, height=128, num_steps=8, guidance_scale=2.0)
    pipeline = TextToImage.from_preset("flux_shapes")
    prompts = [PROMPT, "two blue stars", "a cat"]
    plain = [np.asarray(image, dtype=int) for image in pipeline.generate(prompts, options, seeds=1)]

    pipeline.pack(torch.bfloat16)

    packed = [
        np.asarray(image, dtype=int) for image in pipeline.generate(prompts, options, seeds=1)
    ]
    differences = np.abs(np.array(packed) - np.array(plain))
    assert 0 < differences.mean() < 0.1  # of 255 levels
    assert np.quantile(differences, 0.999) <= 2


def test_image_to_image_recolours_a_shape_and_leaves_it_in_its_place() -> None:
    pipeline = TextToImage.from_preset("flux_shapes")
    options = PaintOptions(width=128, height=128, num_steps=20, guidance_scale=2.0)
    (red,) = pipeline.generate(PROMPT, options, seeds=1)

    (blue,) = pipeline.generate(
        "a large blue circle on a white background at the left",
        replace(options, strength=0.7),
        start_images=red,
        seeds=1,
    )

    before, after = (np.asarray(image, dtype=float) for image in (red, blue))
    was_red = before[..., 0] - before[..., 2] > 100
    is_blue = after[..., 2] - after[..., 0] > 100
    assert (was_red & is_blue).sum() > 0.9 * was_red.sum()
    assert abs(np.argwhere(was_red).mean(axis=0) - np.argwhere(is_blue).mean(axis=0)).max() < 5
