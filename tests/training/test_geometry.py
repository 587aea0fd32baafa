"""The judge that looks at pixels alone must be right where the truth is known."""

import math
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from training.geometry import DetectedShapes, detect_shapes, overlap_with
from training.segmentation import Mask, Pixels
from training.shapes_world import (
    RADII,
    SHAPES,
    SIZES,
    Item,
    Layout,
    Placed,
    Scene,
    complete,
    draw_mask,
    draw_said,
    place_items,
    render,
    single,
)


def named(detected: DetectedShapes) -> tuple[str, list[tuple[str, str]]]:
    names = [(shape.colour, shape.shape) for shape in detected.shapes]
    return detected.background, sorted(names, key=str)


def wanted(scene: Scene) -> tuple[str | None, list[tuple[str | None, str | None]]]:
    return scene.background, [
        *sorted((item.colour or "", item.shape or "") for item in scene.items)
    ]


def rendered(scene: Scene, seed: int = 0, side: int = 128) -> Pixels:
    return np.asarray(render(scene, random.Random(seed), side))


def drawn(shape: str, radius: float, degrees: float = 0.0) -> Mask:
    placed = Placed(shape, 0.5, 0.5, radius, math.radians(degrees))
    return np.asarray(draw_mask(placed, 128)) > 127


@pytest.mark.parametrize("side", [64, 128, 256])
def test_renderings_are_seen_as_they_are(side: int) -> None:
    rng = random.Random(side)
    scenes = [complete(draw_said(rng, held_out=True), rng) for _ in range(2000 // side)]

    detections = [detect_shapes(np.asarray(render(scene, rng, side))) for scene in scenes]

    assert [named(detected) for detected in detections] == [wanted(scene) for scene in scenes]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_each_shape_fits_itself_nearly_exactly(shape: str, size: str) -> None:
    scene = single("blue", shape, size, "bottom left", "yellow")

    (seen,) = detect_shapes(rendered(scene)).shapes

    (placed,) = place_items(scene, random.Random(0))
    assert seen.shape == shape
    assert seen.overlap > (0.94 if size == "small" else 0.95)  # more of it is edge
    assert (seen.x, seen.y) == pytest.approx((placed.x, placed.y), abs=0.5 / 128)
    assert seen.radius == pytest.approx(placed.radius, abs=0.6 / 128)


@pytest.mark.parametrize("shape", ["square", "hexagon", "circle"])
def test_the_smallest_compact_shapes_are_told_apart(shape: str) -> None:
    radius = RADII[Layout.THREE]["small"][0]
    three = Scene(Layout.THREE, (Item("gray", shape, "small"),) * 3, background="brown")

    assert named(detect_shapes(rendered(three))) == wanted(three)
    assert overlap_with(drawn(shape, radius), shape) > 0.95


@pytest.mark.parametrize("shape", ["arrow", "moon"])
def test_a_shape_that_is_turned_around_does_not_fit(shape: str) -> None:
    mask = drawn(shape, 0.2)

    assert overlap_with(mask, shape) > 0.97
    assert overlap_with(mask[:, ::-1], shape) < 0.8


def test_a_small_turn_is_followed_and_a_large_one_is_not() -> None:
    assert overlap_with(drawn("cross", 0.2, degrees=10.0), "cross") > 0.95
    assert overlap_with(drawn("cross", 0.2, degrees=45.0), "cross") < 0.75


def test_two_shapes_are_seen_from_left_to_right() -> None:
    pair = (Item("red", "square", "large"), Item("black", "moon", "large"))

    detected = detect_shapes(rendered(Scene(Layout.ROW, pair, background="white")))

    assert [(seen.colour, seen.shape) for seen in detected.shapes] == [
        ("red", "square"),
        ("black", "moon"),
    ]


def test_touching_shapes_of_two_colours_are_two() -> None:
    image = Image.new("RGB", (128, 128), (245, 245, 245))
    ImageDraw.Draw(image).rectangle((20, 40, 63, 83), fill=(220, 40, 40))
    ImageDraw.Draw(image).rectangle((64, 40, 107, 83), fill=(40, 80, 220))

    assert named(detect_shapes(np.asarray(image))) == (
        "white",
        [("blue", "square"), ("red", "square")],
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_and_noise_change_no_name(shape: str) -> None:
    scene = single("yellow", shape, "small", "top", "blue")
    blurred = Image.fromarray(rendered(scene)).filter(ImageFilter.GaussianBlur(1.0))
    noise = np.random.default_rng(0).normal(0, 8, (128, 128, 3))

    detected = detect_shapes((np.asarray(blurred) + noise).clip(0, 255).astype(np.uint8))

    assert named(detected) == wanted(scene)
    assert detected.shapes[0].overlap > 0.9


def test_a_image_without_shapes_shows_none() -> None:
    image = np.asarray(Image.new("RGB", (128, 128), (245, 140, 30)))

    assert detect_shapes(image) == DetectedShapes("orange", ())


def test_a_speck_is_no_shape() -> None:
    scene = single("red", "star", "large", "right", "white")
    image = rendered(scene).copy()
    image[10:14, 10:14] = 20

    assert named(detect_shapes(image)) == wanted(scene)


def test_a_highlight_is_no_second_shape() -> None:
    scene = single("blue", "square", "large", "center", "black")
    image = rendered(scene).copy()
    image[50:60, 55:62] = (90, 150, 250)

    assert named(detect_shapes(image)) == wanted(scene)


def test_a_blob_fits_no_shape() -> None:
    image = Image.new("RGB", (128, 128), (245, 245, 245))
    for box in ((20, 50, 50, 70), (40, 40, 60, 100), (55, 85, 105, 95), (90, 30, 100, 90)):
        ImageDraw.Draw(image).ellipse(box, fill=(140, 50, 170))

    (seen,) = detect_shapes(np.asarray(image)).shapes

    assert seen.overlap < 0.7


def test_noise_ends_in_an_answer() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    assert all(0.0 <= seen.overlap <= 1.0 for seen in detect_shapes(noise).shapes)


def test_a_thin_line_ends_in_an_answer() -> None:
    image = Image.new("RGB", (128, 128), (20, 20, 20))
    ImageDraw.Draw(image).line((5, 9, 120, 40), fill=(245, 245, 245), width=2)

    (seen,) = detect_shapes(np.asarray(image)).shapes

    assert seen.overlap < 0.4
