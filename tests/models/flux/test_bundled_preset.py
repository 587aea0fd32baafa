"""The bundled `flux_shapes`: a directory that diffusers reads too, painting the same picture."""

import torch
from diffusers import FluxPipeline

from models.flux.text_to_image import TextToImage
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
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(1),
        max_sequence_length=24,
        output_type="latent",
    ).images

    pipeline = load_pipeline("flux_shapes")
    assert isinstance(pipeline, TextToImage)
    *_, last = pipeline.denoise(pipeline.encode([PROMPT]), [1], 128, 128, 8, 3.0)

    torch.testing.assert_close(last.patches, expected, atol=1e-4, rtol=0)
