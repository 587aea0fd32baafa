"""The shapes world: scenes of coloured shapes, what a sentence leaves unsaid, and renderings.

A scene is what an image shows: one shape at one of nine places, two in a row or a column, or
three in a row, on a plain background. What is said of a scene is a scene too, with None for what
was not said; `complete` chooses that. A rendering has a little random jitter in place, size and
angle. This module knows nothing about models or sentences.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from PIL import Image, ImageDraw

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 210, 40),
    "purple": (140, 50, 170),
    "orange": (245, 140, 30),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
    "pink": (250, 140, 190),
    "brown": (125, 75, 35),
    "gray": (130, 130, 130),
}
SHAPES = (
    "circle", "square", "triangle", "star", "ring", "cross", "heart", "moon", "hexagon", "arrow",
)  # fmt: skip
SIZES = ("small", "medium", "large")
PLACES = (
    "center", "left", "right", "top", "bottom",
    "top left", "top right", "bottom left", "bottom right",
)  # fmt: skip

# Never shown to the image model: they measure whether it composes colour and shape.
HELD_OUT = frozenset(
    {
        ("green", "star"),
        ("orange", "ring"),
        ("blue", "cross"),
        ("purple", "triangle"),
        ("yellow", "circle"),
        ("white", "square"),
    }
)

# Below, lengths are fractions of the image's side and radii those of the circumscribed circle.
NEAR, FAR = 0.27, 0.73
CENTRES = {
    place: (
        NEAR if "left" in place else FAR if "right" in place else 0.5,
        NEAR if "top" in place else FAR if "bottom" in place else 0.5,
    )
    for place in PLACES
}
# So little that a small model need not guess where and how large a shape will be.
CENTRE_JITTER = 0.01
ANGLE_JITTER_DEGREES = 2.5
SUPERSAMPLING = 4  # edges are drawn at 4 times the size and averaged: smooth, still exact in colour


class Layout(StrEnum):
    ONE = "one"
    ROW = "row"  # two side by side, the left one first
    COLUMN = "column"  # one above the other, the upper one first
    TWO = "two"  # said only: two shapes without a relation; painted as a row
    THREE = "three"  # three equal shapes in a row


RADII: dict[Layout, dict[str, tuple[float, float]]] = {
    Layout.ONE: {"small": (0.114, 0.121), "medium": (0.164, 0.171), "large": (0.217, 0.228)},
    Layout.ROW: {"small": (0.103, 0.107), "medium": (0.139, 0.146), "large": (0.172, 0.178)},
    Layout.COLUMN: {"small": (0.103, 0.107), "medium": (0.139, 0.146), "large": (0.172, 0.178)},
    Layout.THREE: {"small": (0.081, 0.084), "medium": (0.1, 0.104), "large": (0.121, 0.125)},
}
SPOTS: dict[Layout, tuple[tuple[float, float], ...]] = {
    Layout.ROW: ((0.27, 0.5), (0.73, 0.5)),
    Layout.COLUMN: ((0.5, 0.27), (0.5, 0.73)),
    Layout.THREE: ((0.2, 0.5), (0.5, 0.5), (0.8, 0.5)),
}

# What is chosen for what is not said: one shape, and one colour of each, so that a small model need
# not choose; where it chose among four, it mixed them. None of these is held out.
USUAL_SHAPE = "heart"
USUAL_COLOUR = {
    "circle": "red",
    "square": "blue",
    "triangle": "green",
    "star": "yellow",
    "ring": "blue",
    "cross": "red",
    "heart": "red",
    "moon": "yellow",
    "hexagon": "orange",
    "arrow": "blue",
}
PALE = frozenset({"white", "yellow", "pink"})  # these do not stand out on white
ODD_BACKGROUND_SHARE = 0.1
# Least distances in sRGB of a colour and of a background that nobody asked for.
LEAST_CONTRAST, ODD_CONTRAST = 130.0, 190.0


@dataclass(frozen=True, slots=True)
class Item:
    """One shape; None for what is not said."""

    colour: str | None = None
    shape: str | None = None
    size: str | None = None

    @property
    def label(self) -> str:
        """The class name of `vit_shapes`."""
        return f"{self.colour} {self.shape}"

    @property
    def is_held_out(self) -> bool:
        return (self.colour, self.shape) in HELD_OUT


@dataclass(frozen=True, slots=True)
class Scene:
    """One to three shapes on a background, which has none of their colours."""

    layout: Layout
    items: tuple[Item, ...]
    place: str | None = None  # of a single shape
    background: str | None = None

    @property
    def is_held_out(self) -> bool:
        return any(item.is_held_out for item in self.items)


def single(colour: str, shape: str, size: str, place: str, background: str) -> Scene:
    """A scene of one shape of which everything is said."""
    return Scene(Layout.ONE, (Item(colour, shape, size),), place, background)


def all_singles() -> Iterator[Scene]:
    for colour in COLOURS:
        for shape in SHAPES:
            for size in SIZES:
                for place in PLACES:
                    for background in COLOURS:
                        if background != colour:
                            yield single(colour, shape, size, place, background)


def labels() -> list[str]:
    return [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def complete(said: Scene, rng: random.Random) -> Scene:
    """Choose what is not said; held-out combinations are never chosen."""
    layout = Layout.ROW if said.layout is Layout.TWO else said.layout
    usual_size = "large" if layout is Layout.ONE else "medium"
    items = tuple(_complete_item(item, said.background, usual_size) for item in said.items)
    place = None if layout is not Layout.ONE else said.place or "center"
    taken = {item.colour for item in items if item.colour is not None}
    return Scene(layout, items, place, said.background or _background(taken, rng))


def _complete_item(item: Item, background: str | None, size: str) -> Item:
    shape = item.shape or USUAL_SHAPE
    return Item(item.colour or _colour(shape, background), shape, item.size or size)


def _colour(shape: str, background: str | None) -> str:
    """The usual one, or, where it does not stand out, white or black."""
    usual = USUAL_COLOUR[shape]
    if background is None or _contrast(usual, background) >= LEAST_CONTRAST:
        return usual
    others = [colour for colour in ("white", "black") if (colour, shape) not in HELD_OUT]
    return max(others, key=lambda colour: _contrast(colour, background))


def _background(taken: set[str], rng: random.Random) -> str:
    """White, or black behind something pale; now and then another colour that contrasts."""
    if rng.random() < ODD_BACKGROUND_SHARE and (odd := _contrasting(taken)):
        return rng.choice(odd)
    usual = ("black", "blue", "brown", "red") if taken & PALE else ("white", "yellow")
    return next(colour for colour in usual if colour not in taken)


def _contrasting(taken: set[str]) -> list[str]:
    return [c for c in COLOURS if all(_contrast(c, other) >= ODD_CONTRAST for other in taken)]


def _contrast(one: str, other: str) -> float:
    return math.dist(COLOURS[one], COLOURS[other])


def draw_said(rng: random.Random, held_out: bool = False) -> Scene:
    """Draw what a sentence might say; of held-out combinations only where `held_out`."""
    while True:
        kind = rng.random()
        layout = (
            Layout.ONE if kind < 0.62
            else rng.choice((Layout.ROW, Layout.COLUMN)) if kind < 0.81
            else Layout.TWO if kind < 0.91
            else Layout.THREE
        )  # fmt: skip
        said = _draw_single(rng) if layout is Layout.ONE else _draw_several(layout, rng)
        if held_out or not said.is_held_out:
            return said


def _draw_single(rng: random.Random) -> Scene:
    item = _draw_item(rng, size_share=0.5)
    if rng.random() < 0.05:
        item = replace(item, colour=None)
    if rng.random() < 0.05:
        item = replace(item, shape=None)
    is_full = rng.random() < 0.25
    if is_full:
        item = replace(item, size=rng.choice(SIZES))
    place = rng.choice(PLACES) if is_full or rng.random() < 0.5 else None
    return _with_background(Scene(Layout.ONE, (item,), place), rng, 1.0 if is_full else 0.5)


def _draw_several(layout: Layout, rng: random.Random) -> Scene:
    first = second = _draw_item_of_several(rng)
    while second == first:
        second = _draw_item_of_several(rng)
    if layout is Layout.THREE:
        items: tuple[Item, ...] = (first,) * 3
    elif layout is Layout.TWO and rng.random() < 0.6:
        items = (first,) * 2
    else:
        items = (first, second)
    return _with_background(Scene(layout, items), rng, 0.4)


def _draw_item(rng: random.Random, size_share: float) -> Item:
    size = rng.choice(SIZES) if rng.random() < size_share else None
    return Item(rng.choice(tuple(COLOURS)), rng.choice(SHAPES), size)


def _draw_item_of_several(rng: random.Random) -> Item:
    item = _draw_item(rng, size_share=0.25)
    return replace(item, colour=None) if rng.random() < 0.06 else item


def _with_background(scene: Scene, rng: random.Random, share: float) -> Scene:
    if rng.random() >= share:
        return scene
    taken = {item.colour for item in scene.items}
    return replace(scene, background=rng.choice([c for c in COLOURS if c not in taken]))


@dataclass(frozen=True, slots=True)
class Placed:
    """A shape where it is drawn: middle and radius in fractions of the side, angle in radians."""

    shape: str
    x: float
    y: float
    radius: float
    angle: float


def place_items(scene: Scene, rng: random.Random) -> list[Placed]:
    """Say where a complete scene's shapes lie, with jitter; equal shapes have one size."""
    spots = SPOTS.get(scene.layout) or (CENTRES[scene.place or "center"],)
    size_rng = rng.random()
    placed = []
    for item, (x, y) in zip(scene.items, spots, strict=True):
        low, high = RADII[scene.layout][item.size or "medium"]
        placed.append(
            Placed(
                shape=item.shape or "circle",
                x=x + rng.uniform(-CENTRE_JITTER, CENTRE_JITTER) * _play(scene.layout),
                y=y + rng.uniform(-CENTRE_JITTER, CENTRE_JITTER) * _play(scene.layout),
                radius=low + (high - low) * size_rng,
                angle=math.radians(rng.uniform(-ANGLE_JITTER_DEGREES, ANGLE_JITTER_DEGREES)),
            )
        )
    return placed


def _play(layout: Layout) -> float:
    """Shapes that have neighbours move less."""
    return 1.0 if layout is Layout.ONE else 0.5


def render(scene: Scene, rng: random.Random, side: int) -> Image.Image:
    """Draw a complete scene with jitter, RGB, `side` pixels square."""
    image = Image.new("RGB", (side, side), COLOURS[scene.background or "white"])
    for item, placed in zip(scene.items, place_items(scene, rng), strict=True):
        image.paste(COLOURS[item.colour or "red"], mask=draw_mask(placed, side))
    return image


def draw_mask(placed: Placed, side: int, supersampling: int = SUPERSAMPLING) -> Image.Image:
    """Draw one shape's coverage, 0–255, `side` pixels square."""
    canvas = side * supersampling
    mask = Image.new("L", (canvas, canvas), 0)
    draw = ImageDraw.Draw(mask)
    x, y, radius = placed.x * canvas, placed.y * canvas, placed.radius * canvas
    cos, sin = math.cos(placed.angle), math.sin(placed.angle)

    def at(px: float, py: float) -> tuple[float, float]:
        return x + radius * (px * cos - py * sin), y + radius * (px * sin + py * cos)

    def disc(px: float, py: float, r: float, fill: int) -> None:
        cx, cy = at(px, py)
        draw.ellipse((cx - r * radius, cy - r * radius, cx + r * radius, cy + r * radius), fill)

    match placed.shape:
        case "circle":
            disc(0, 0, 0.95, 255)
        case "ring":
            disc(0, 0, 1.0, 255)
            disc(0, 0, 0.55, 0)
        case "moon":  # the right part is cut out
            disc(0, 0, 1.05, 255)
            disc(0.48, 0, 0.82, 0)
        case shape:
            draw.polygon([at(px, py) for px, py in CORNERS[shape]], fill=255)
    return mask.resize((side, side), Image.Resampling.BOX)


def _polar(corners: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners from (radius, degrees clockwise from the top)."""
    return [(r * math.sin(math.radians(d)), -r * math.cos(math.radians(d))) for r, d in corners]


def _cross(arm: float, half: float) -> list[tuple[float, float]]:
    quarter = [(-half, -arm), (half, -arm), (half, -half)]
    corners = []
    for _ in range(4):
        corners += quarter
        quarter = [(-py, px) for px, py in quarter]
    return corners


def _heart(scale: float) -> list[tuple[float, float]]:
    corners = []
    for i in range(60):
        t = 2 * math.pi * i / 60
        height = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        corners.append((scale * math.sin(t) ** 3, -scale * (height + 2.5) / 16))
    return corners


# In units of the radius, y downwards, around (0, 0).
CORNERS: dict[str, list[tuple[float, float]]] = {
    "square": _polar([(1.15, 45.0 + 90.0 * i) for i in range(4)]),
    "triangle": _polar([(1.15, 120.0 * i) for i in range(3)]),
    "star": _polar([(1.15 if i % 2 == 0 else 0.48, 36.0 * i) for i in range(10)]),
    "cross": _cross(arm=1.0, half=0.32),
    "heart": _heart(1.1),
    "hexagon": _polar([(1.08, 60.0 * i) for i in range(6)]),
    "arrow": [(-1.05, -0.3), (0.1, -0.3), (0.1, -0.82), (1.1, 0.0),
              (0.1, 0.82), (0.1, 0.3), (-1.05, 0.3)],
}  # fmt: skip
