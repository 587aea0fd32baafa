"""The shapes world: what may be shown to whom, and what captions say."""

import random

from training.pictures import seen_scenes
from training.shapes_world import (
    HELD_OUT,
    Scene,
    all_scenes,
    canonical_caption,
    caption,
    labels,
    render,
)


def test_shape_and_background_never_share_a_colour() -> None:
    assert all(scene.colour != scene.background for scene in all_scenes())
    assert len(list(all_scenes())) == 8 * 6 * 2 * 5 * 7


def test_held_out_combinations_are_never_seen() -> None:
    assert {(scene.colour, scene.shape) for scene in seen_scenes()}.isdisjoint(HELD_OUT)
    assert len(seen_scenes()) == 42 * 2 * 5 * 7


def test_there_are_48_labels() -> None:
    assert len(set(labels())) == 48
    assert {scene.label for scene in all_scenes()} == set(labels())


def test_a_caption_says_everything_about_its_scene() -> None:
    rng = random.Random(0)
    for scene in rng.sample(list(all_scenes()), 200):
        sentence = caption(scene, rng)

        assert all(word in sentence for word in (scene.colour, scene.shape, scene.background))


def test_the_canonical_caption_is_the_documented_one() -> None:
    scene = Scene("red", "circle", "large", "left", "white")

    assert canonical_caption(scene) == "a large red circle on a white background at the left"


def test_one_seed_gives_one_rendering() -> None:
    scene = Scene("red", "star", "small", "top", "black")
    first, second = (render(scene, random.Random(5), 64).tobytes() for _ in range(2))

    assert first == second
