"""The judge that looks at pixels alone must be right where the truth is known."""

import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from training.geometry import Sight, see
from training.shapes_world import SHAPES, Scene, all_scenes, render


def looked(scene: Scene) -> Sight:
    return Sight(scene.background, scene.colour, scene.shape, scene.position)


@pytest.mark.parametrize("side", [64, 128])
def test_fresh_renderings_are_seen_as_they_are(side: int) -> None:
    rng = random.Random(side)
    scenes = rng.sample(list(all_scenes()), 150)

    seen = [see(np.asarray(render(scene, rng, side))) for scene in scenes]

    assert seen == [looked(scene) for scene in scenes]


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_and_noise_change_nothing(shape: str) -> None:
    scene = Scene("yellow", shape, "small", "top", "blue")
    blurred = render(scene, random.Random(1), 128).filter(ImageFilter.GaussianBlur(1.0))
    noise = np.random.default_rng(0).normal(0, 8, (128, 128, 3))

    assert see((np.asarray(blurred) + noise).clip(0, 255).astype(np.uint8)) == looked(scene)


def test_an_empty_picture_shows_no_shape() -> None:
    picture = np.asarray(Image.new("RGB", (128, 128), (245, 140, 30)))

    assert see(picture) == Sight("orange", None, None, None)


def test_a_speck_does_not_move_the_shape() -> None:
    scene = Scene("red", "star", "large", "right", "white")
    picture = np.array(render(scene, random.Random(2), 128))
    picture[10:14, 10:14] = 20

    assert see(picture) == looked(scene)
