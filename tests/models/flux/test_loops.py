"""Negative prompts, image-to-image, several images a prompt: the loops against diffusers'.

Float32 on the CPU, diffusers' weights, diffusers' generators with our seeds.
"""

import pytest
import torch

from models.flux.latents import Start
from models.flux.pixels import to_pixels
from models.flux.text_to_image import Negative, TextToImage
from models.layers.images import to_rgb
from tests.models.flux.loops import (
    PROMPT,
    PROMPTS,
    UNWANTED,
    Pipelines,
    expected_patches,
    image_to_image_oracle,
    last_patches,
    shifted_oracle,
    start_image,
)

LATENTS = 2e-5  # float32 rounding over the steps; a wrong order or factor shows at 1e-2 and more


@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
@pytest.mark.parametrize("name", ["dev", "schnell"])
def test_a_negative_prompt_steers_as_in_diffusers(
    pipelines: Pipelines, name: str, size: tuple[int, int]
) -> None:
    oracle, directory = pipelines[name]
    pipeline = TextToImage.from_preset(directory)
    negative = Negative(pipeline.encode([UNWANTED]), true_cfg_scale=4.0)

    patches = last_patches(pipeline, [7], size=size, negative=negative)

    expected = expected_patches(oracle, [7], size, negative_prompt=UNWANTED, true_cfg_scale=4.0)
    torch.testing.assert_close(patches, expected, atol=LATENTS, rtol=0)
    assert not torch.allclose(patches, last_patches(pipeline, [7], size=size), atol=0.01)


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
@pytest.mark.parametrize("name", ["dev", "schnell"])
def test_image_to_image_equals_diffusers(
    pipelines: Pipelines, name: str, size: tuple[int, int], strength: float
) -> None:
    oracle, directory = pipelines[name]
    pipeline = TextToImage.from_preset(directory)

    patches = last_patches(pipeline, [7], size=size, start=Start([start_image(1)], strength))

    expected = expected_patches(
        image_to_image_oracle(oracle), [7], size, image=start_image(1), strength=strength
    )
    torch.testing.assert_close(patches, expected, atol=LATENTS, rtol=0)


def test_image_to_image_of_several_prompts_with_a_negative_one_equals_diffusers(
    pipelines: Pipelines,
) -> None:
    oracle, directory = pipelines["dev"]
    pipeline = TextToImage.from_preset(directory)
    starts = [start_image(1), start_image(2)]
    negative = Negative(pipeline.encode([UNWANTED]), true_cfg_scale=2.0)

    patches = last_patches(pipeline, [7, 3], PROMPTS, negative=negative, start=Start(starts, 0.6))

    expected = expected_patches(
        image_to_image_oracle(oracle),
        [7, 3],
        prompt=PROMPTS,
        negative_prompt=[UNWANTED] * 2,
        true_cfg_scale=2.0,
        image=starts,
        strength=0.6,
    )
    torch.testing.assert_close(patches, expected, atol=LATENTS, rtol=0)


def test_several_images_a_prompt_equal_diffusers(pipelines: Pipelines) -> None:
    oracle, directory = pipelines["dev"]
    pipeline = TextToImage.from_preset(directory)

    patches = last_patches(pipeline, [7, 8, 9, 10], PROMPTS)

    expected = expected_patches(oracle, [7, 8, 9, 10], prompt=PROMPTS, num_images_per_prompt=2)
    torch.testing.assert_close(patches, expected, atol=LATENTS, rtol=0)


@pytest.mark.parametrize("max_sequence_length", [5, 16, 48])
def test_max_sequence_length_equals_diffusers(
    pipelines: Pipelines, max_sequence_length: int
) -> None:
    oracle, directory = pipelines["schnell"]
    pipeline = TextToImage.from_preset(directory)

    patches = last_patches(pipeline, [7], max_sequence_length=max_sequence_length)

    expected = expected_patches(oracle, [7], max_sequence_length=max_sequence_length)
    torch.testing.assert_close(patches, expected, atol=LATENTS, rtol=0)


@pytest.mark.parametrize("name", ["dev", "schnell"])
def test_a_flow_shift_equals_diffusers_static_shift(pipelines: Pipelines, name: str) -> None:
    oracle, directory = pipelines[name]
    pipeline = TextToImage.from_preset(directory)

    patches = last_patches(pipeline, [7], flow_shift=4.0)

    expected = expected_patches(shifted_oracle(oracle, 4.0), [7])
    torch.testing.assert_close(patches, expected, atol=LATENTS, rtol=0)
    assert not torch.allclose(patches, last_patches(pipeline, [7]), atol=0.01)


def test_max_sequence_length_is_checked(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    with pytest.raises(ValueError, match="max_sequence_length 49 is not in 1 … 48"):
        pipeline.encode([PROMPT], max_sequence_length=49)


def test_a_cut_prompt_is_counted_at_its_length(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    text = pipeline.encode(["a red circle", "red " * 10], max_sequence_length=5)
    assert text.text.shape[1] == 5
    assert (text.num_tokens, text.truncated) == ((4, 5), (False, True))


def test_at_strength_1_nothing_of_the_start_image_is_left(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["dev"][1])
    first, second = (
        last_patches(pipeline, [7], start=Start([start_image(seed)], 1.0)) for seed in (1, 2)
    )
    assert torch.equal(first, second)


def test_start_images_become_pixels_as_in_diffusers(pipelines: Pipelines) -> None:
    processor = image_to_image_oracle(pipelines["dev"][0]).image_processor
    expected = processor.preprocess(start_image(1), height=64, width=96)
    torch.testing.assert_close(to_pixels([start_image(1)], 96, 64), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_start_images_may_be_of_any_mode(mode: str) -> None:
    other = start_image(1).convert("L").convert("I").convert(mode) if mode == "I;16" else None
    start = other or start_image(1).convert(mode)
    assert torch.equal(to_pixels([start], 32, 16), to_pixels([to_rgb(start)], 32, 16))
