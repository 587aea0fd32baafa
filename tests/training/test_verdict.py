"""What an image lacks of what was said is found, and nothing else."""

import random
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest

from training.geometry import DetectedShapes, SeenShape, detect_shapes
from training.shapes_world import RADII, Item, Layout, Scene, complete, draw_said, render, single
from training.verdict import Verdict, compare

RED_STAR = single("red", "star", "large", "top left", "white")
RED, BLUE = Item("red", "square"), Item("blue", "circle")


def seen(
    colour: str, shape: str, x: float = 0.5, y: float = 0.5, radius: float = 0.14
) -> SeenShape:
    return SeenShape(colour, shape, x, y, radius, overlap=0.95)


def detected(*shapes: SeenShape, background: str = "white") -> DetectedShapes:
    return DetectedShapes(background, tuple(sorted(shapes, key=lambda shape: shape.x)))


def wrong_parts(verdict: Verdict) -> Sequence[str]:
    return [part for part, is_right in asdict(verdict).items() if is_right is False]


def painted(scene: Scene) -> DetectedShapes:
    return detect_shapes(np.asarray(render(scene, random.Random(4), 128)))


def test_images_of_what_was_said_are_right() -> None:
    rng = random.Random(1)
    for _ in range(25):
        said = draw_said(rng, held_out=True)

        assert wrong_parts(compare(said, painted(complete(said, rng)))) == []


@pytest.mark.parametrize(
    ("painted_scene", "part"),
    [
        (single("pink", "star", "large", "top left", "white"), "colour"),
        (single("red", "heart", "large", "top left", "white"), "shape"),
        (single("red", "star", "medium", "top left", "white"), "size"),
        (single("red", "star", "large", "top right", "white"), "place"),
        (single("red", "star", "large", "top left", "gray"), "background"),
    ],
)
def test_only_the_part_that_is_wrong_is_wrong(painted_scene: Scene, part: str) -> None:
    verdict = compare(RED_STAR, painted(painted_scene))

    assert wrong_parts(verdict) == [part]
    assert not verdict.is_right


def test_what_was_not_said_is_not_judged() -> None:
    verdict = compare(Scene(Layout.ONE, (Item(colour="red"),)), painted(RED_STAR))

    assert verdict == Verdict(
        count=True, colour=True, shape=None, size=None, place=None, relation=None, background=None
    )


def test_an_unsaid_background_must_be_another_colour() -> None:
    verdict = compare(Scene(Layout.ONE, (RED,)), detected(seen("red", "square"), background="red"))

    assert wrong_parts(verdict) == ["background"]


def test_an_empty_image_has_nothing_of_what_was_said() -> None:
    verdict = compare(RED_STAR, detected())

    assert wrong_parts(verdict) == ["count", "colour", "shape", "size", "place"]


def test_a_second_shape_is_wrong_in_number_alone() -> None:
    shapes = (seen("red", "square", radius=0.2), seen("blue", "ring", x=0.9, radius=0.05))

    assert wrong_parts(compare(Scene(Layout.ONE, (RED,)), detected(*shapes))) == ["count"]


@pytest.mark.parametrize(("layout", "axis"), [(Layout.ROW, "x"), (Layout.COLUMN, "y")])
def test_swapped_shapes_are_wrong_in_their_relation_alone(layout: Layout, axis: str) -> None:
    first, second = seen("red", "square", **{axis: 0.27}), seen("blue", "circle", **{axis: 0.73})
    said = Scene(layout, (RED, BLUE))

    assert compare(said, detected(first, second)).is_right
    swapped = replace(said, items=(BLUE, RED))
    assert wrong_parts(compare(swapped, detected(first, second))) == ["relation"]


def test_a_column_is_no_row() -> None:
    shapes = (seen("red", "square", y=0.27, x=0.49), seen("blue", "circle", y=0.73))

    assert wrong_parts(compare(Scene(Layout.ROW, (RED, BLUE)), detected(*shapes))) == ["relation"]


@pytest.mark.parametrize("items", [(RED, BLUE), (BLUE, RED)])
def test_two_shapes_without_a_relation_may_lie_anyhow(items: tuple[Item, ...]) -> None:
    shapes = (seen("red", "square", x=0.2, y=0.9), seen("blue", "circle", x=0.8, y=0.1))

    assert compare(Scene(Layout.TWO, items), detected(*shapes)).is_right


def test_exchanged_colours_are_wrong() -> None:
    shapes = (seen("blue", "square", x=0.27), seen("red", "circle", x=0.73))

    assert not compare(Scene(Layout.TWO, (RED, BLUE)), detected(*shapes)).is_right


@pytest.mark.parametrize(("count", "is_right"), [(2, False), (3, True), (4, False)])
def test_three_are_three(count: int, is_right: bool) -> None:
    shapes = [seen("red", "square", x=0.2 * (i + 1), radius=0.1) for i in range(count)]

    assert compare(Scene(Layout.THREE, (RED,) * 3), detected(*shapes)).count is is_right


@pytest.mark.parametrize("layout", [Layout.ROW, Layout.COLUMN, Layout.THREE])
def test_of_several_only_the_far_size_is_wrong(layout: Layout) -> None:
    small, large = RADII[layout]["small"][0], RADII[layout]["large"][1]
    items = tuple(replace(RED, size="small") for _ in range(3 if layout is Layout.THREE else 2))

    def has_size(radius: float) -> bool | None:
        shapes = [
            seen("red", "square", 0.2 + i / 4, 0.2 + i / 4, radius) for i in range(len(items))
        ]
        return compare(Scene(layout, items), detected(*shapes)).size

    assert has_size(small)
    assert has_size((small + large) / 2)
    assert not has_size(large)


def test_of_two_said_sizes_the_larger_must_be_larger() -> None:
    said = Scene(Layout.ROW, (replace(RED, size="small"), replace(BLUE, size="medium")))
    shapes = (seen("red", "square", 0.27, radius=0.14), seen("blue", "circle", 0.73, radius=0.13))

    assert wrong_parts(compare(said, detected(*shapes))) == ["size"]
