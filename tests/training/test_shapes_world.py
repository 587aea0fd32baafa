"""The shapes world: what may be shown to whom, and what is chosen for what is not said."""

import random
from dataclasses import replace

import numpy as np
import pytest

from training.shapes_world import (
    CENTRES,
    COLOURS,
    HELD_OUT,
    PLACES,
    RADII,
    SHAPES,
    SIZES,
    SPOTS,
    Item,
    Layout,
    Placed,
    Scene,
    all_singles,
    complete,
    draw_mask,
    draw_said,
    labels,
    place_items,
    render,
    single,
)

RED_STAR = single("red", "star", "small", "top", "black")


def drawn(count: int, held_out: bool = False) -> list[Scene]:
    rng = random.Random(3)
    return [draw_said(rng, held_out) for _ in range(count)]


def test_shape_and_background_never_share_a_colour() -> None:
    scenes = list(all_singles())

    assert all(scene.items[0].colour != scene.background for scene in scenes)
    assert len(set(scenes)) == 11 * 10 * 3 * 9 * 10


def test_there_are_110_labels() -> None:
    assert len(set(labels())) == 110
    assert {scene.items[0].label for scene in all_singles()} == set(labels())


def test_held_out_combinations_are_only_drawn_when_asked_for() -> None:
    assert not any(scene.is_held_out for scene in drawn(2000))
    held_out = {(i.colour, i.shape) for scene in drawn(2000, held_out=True) for i in scene.items}
    assert held_out >= HELD_OUT


def test_held_out_combinations_are_never_chosen() -> None:
    rng = random.Random(0)
    for said in (Scene(Layout.ONE, (Item(),)), *(Scene(Layout.ONE, (Item(c),)) for c in COLOURS)):
        assert not any(complete(said, rng).is_held_out for _ in range(50))


def test_what_is_said_stays_as_it_was_said() -> None:
    rng = random.Random(0)
    for said in drawn(500, held_out=True):
        scene = complete(said, rng)

        assert [scene.place, scene.background] == [
            said.place or scene.place,
            said.background or scene.background,
        ]
        for item, full in zip(said.items, scene.items, strict=True):
            assert full == Item(
                item.colour or full.colour, item.shape or full.shape, item.size or full.size
            )


def test_what_is_not_said_is_chosen() -> None:
    rng = random.Random(0)
    for said in drawn(500):
        scene = complete(said, rng)

        parts = [part for i in scene.items for part in (i.colour, i.shape, i.size)]
        assert None not in [*parts, scene.background]
        assert (scene.place is not None) == (scene.layout is Layout.ONE)
        assert scene.layout is not Layout.TWO
        assert scene.background not in {item.colour for item in scene.items}


def test_three_of_a_kind_stay_equal() -> None:
    said = Scene(Layout.THREE, (Item(shape="heart"),) * 3)

    assert len(set(complete(said, random.Random(1)).items)) == 1


def test_one_seed_gives_one_rendering() -> None:
    first, second = (render(RED_STAR, random.Random(5), 64).tobytes() for _ in range(2))

    assert first == second


def test_a_rendering_has_the_colours_of_the_scene() -> None:
    pixels = np.asarray(render(RED_STAR, random.Random(5), 128)).reshape(-1, 3)

    found, counts = np.unique(pixels, axis=0, return_counts=True)
    most = {tuple(found[i].tolist()) for i in np.argsort(counts)[-2:]}
    assert most == {COLOURS["red"], COLOURS["black"]}


@pytest.mark.parametrize("place", PLACES)
def test_a_single_shape_lies_near_its_place(place: str) -> None:
    (placed,) = place_items(replace(RED_STAR, place=place), random.Random(2))

    assert (placed.x, placed.y) == pytest.approx(CENTRES[place], abs=0.021)


@pytest.mark.parametrize("layout", list(RADII))
def test_sizes_do_not_overlap(layout: Layout) -> None:
    bounds = [bound for size in SIZES for bound in RADII[layout][size]]

    assert bounds == sorted(set(bounds))


@pytest.mark.parametrize("layout", list(SPOTS))
@pytest.mark.parametrize("shape", SHAPES)
def test_neighbours_never_touch(layout: Layout, shape: str) -> None:
    scene = Scene(layout, (Item("red", shape, "large"),) * len(SPOTS[layout]), background="white")
    rng = random.Random(7)
    for _ in range(5):
        masks = [np.asarray(draw_mask(placed, 128)) > 127 for placed in place_items(scene, rng)]

        assert np.sum(masks, axis=0).max() == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_reaches_about_its_radius(shape: str) -> None:
    rows, columns = np.nonzero(np.asarray(draw_mask(Placed(shape, 0.5, 0.5, 0.25, 0.0), 128)) > 127)

    reach = np.hypot(rows + 0.5 - 64, columns + 0.5 - 64).max() / 32
    assert 0.9 < reach < 1.3
