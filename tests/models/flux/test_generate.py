"""`TextToImage.generate`: images, seeds, and what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

from models.flux.painting import PaintOptions
from models.flux.text_to_image import TextToImage
from tests.models.flux.loops import (
    PROMPT,
    PROMPTS,
    UNWANTED,
    Pipelines,
    generators,
    guidance_of,
    image_to_image_oracle,
    start_image,
)


def paint_options(pipeline: TextToImage, **changes: object) -> PaintOptions:
    settings: dict[str, object] = {
        "width": 64,
        "height": 64,
        "num_steps": 2,
        "guidance_scale": guidance_of(pipeline),
    }
    return PaintOptions(**settings | changes)  # type: ignore[arg-type]


def grey_levels_apart(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


@pytest.mark.parametrize("name", ["dev", "schnell"])
def test_generated_images_equal_diffusers_to_one_grey_level(
    pipelines: Pipelines, name: str
) -> None:
    oracle, directory = pipelines[name]
    pipeline = TextToImage.from_preset(directory)
    options = paint_options(
        pipeline, width=96, true_cfg_scale=3.0, strength=0.7, max_sequence_length=16
    )

    images = pipeline.generate(
        PROMPTS,
        options,
        negative_prompts=UNWANTED,
        start_images=[start_image(1), start_image(2)],
        seeds=[7, 3],
    )

    expected = image_to_image_oracle(oracle)(
        prompt=PROMPTS,
        negative_prompt=[UNWANTED] * 2,
        true_cfg_scale=3.0,
        image=[start_image(1), start_image(2)],
        strength=0.7,
        width=96,
        height=64,
        num_inference_steps=2,
        guidance_scale=3.5,
        generator=generators([7, 3]),
        max_sequence_length=16,
    ).images
    assert [image.size for image in images] == [(96, 64)] * 2
    assert max(map(grey_levels_apart, images, expected)) <= 1


def test_one_seed_gives_one_image_alone_and_in_a_batch_with_everything_on(
    pipelines: Pipelines,
) -> None:
    pipeline = TextToImage.from_preset(pipelines["dev"][1])
    options = paint_options(pipeline, true_cfg_scale=3.0, strength=0.7)
    starts = [start_image(1), start_image(2)]

    together = pipeline.generate(
        PROMPTS,
        options,
        negative_prompts=[UNWANTED, "a star"],
        start_images=starts,
        num_images_per_prompt=2,
        seeds=5,
    )
    alone = pipeline.generate(
        PROMPTS[1], options, negative_prompts="a star", start_images=starts[1], seeds=8
    )

    assert [image.info["seed"] for image in together] == [5, 6, 7, 8]
    assert grey_levels_apart(together[3], alone[0]) <= 1
    assert grey_levels_apart(together[2], alone[0]) > 10


def test_images_without_seeds_differ_and_say_theirs(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    options = paint_options(pipeline)

    first, second = pipeline.generate(PROMPT, options, num_images_per_prompt=2)
    again = pipeline.generate(PROMPT, options, seeds=[second.info["seed"]])

    assert grey_levels_apart(first, second) > 10
    assert grey_levels_apart(second, again[0]) <= 1


def test_a_pipeline_comes_from_a_preset_by_its_name_or_its_directory(
    pipelines: Pipelines,
) -> None:
    assert TextToImage.from_preset("flux_shapes").has_guidance
    assert not TextToImage.from_preset(pipelines["schnell"][1], dtype=torch.float32).has_guidance


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 100}, "width 100 is not a multiple of 16"),
        ({"height": 0}, "height 0 is not a multiple of 16"),
        ({"num_steps": 0}, "num_steps 0 is less than 1"),
        ({"true_cfg_scale": 0.5}, "true_cfg_scale 0.5 is less than 1"),
        ({"strength": 0.0}, r"strength 0.0 is not in \(0, 1\]"),
        ({"strength": 1.5}, r"strength 1.5 is not in \(0, 1\]"),
        ({"guidance_scale": 2.0}, "takes no guidance_scale; got 2.0"),
        ({"true_cfg_scale": 2.0}, "true_cfg_scale 2.0 needs negative_prompts"),
        ({"strength": 0.5}, "strength 0.5 has no effect without start_images"),
        ({"flow_shift": 0.0}, "flow_shift 0.0 is not a finite number above 0"),
        ({"max_sequence_length": 0}, "max_sequence_length 0 is not in 1 … 48"),
    ],
)
def test_a_bad_option_is_refused(
    pipelines: Pipelines, settings: dict[str, object], message: str
) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    with pytest.raises(ValueError, match=message):
        pipeline.generate(PROMPT, paint_options(pipeline, **settings))


@pytest.mark.parametrize(
    ("seeds", "message"),
    [([1, 2, 3], "3 seeds do not go with 2 images"), (-1, "seed -1 is not in 0")],
)
def test_bad_seeds_are_refused(pipelines: Pipelines, seeds: int | list[int], message: str) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    with pytest.raises(ValueError, match=message):
        pipeline.generate(PROMPTS, paint_options(pipeline), seeds=seeds)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((0, 1, 0, 0), "there is no prompt"),
        ((2, 0, 0, 0), "num_images_per_prompt 0 is less than 1"),
        ((2, 1, 3, 0), "3 negative_prompts do not go with 2 prompts"),
        ((2, 1, 0, 3), "3 start_images do not go with 2 prompts"),
    ],
)
def test_counts_that_do_not_match_are_refused(
    pipelines: Pipelines, counts: tuple[int, int, int, int], message: str
) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    num_prompts, num_images_per_prompt, num_negatives, num_starts = counts
    with pytest.raises(ValueError, match=message):
        pipeline.generate(
            [PROMPT] * num_prompts,
            paint_options(pipeline),
            negative_prompts=[UNWANTED] * num_negatives,
            start_images=[start_image(1)] * num_starts,
            num_images_per_prompt=num_images_per_prompt,
        )


def test_a_negative_prompt_that_would_be_ignored_is_refused(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    with pytest.raises(ValueError, match="no effect at true_cfg_scale 1"):
        pipeline.generate(PROMPT, paint_options(pipeline), negative_prompts=UNWANTED)
