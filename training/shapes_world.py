"""The shapes world: scenes of one coloured shape, their captions and their renderings.

A scene is five words; a caption is one of many sentences for it; a rendering draws it with a little
random jitter in place, size and angle. It knows nothing about models.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

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
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = ("small", "large")
POSITIONS = ("center", "left", "right", "top", "bottom")

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

# Radius of the circumscribed circle and centre, as fractions of the picture's side.
RADIUS_RANGES = {"small": (0.13, 0.15), "large": (0.2, 0.235)}
CENTRES = {
    "center": (0.5, 0.5),
    "left": (0.27, 0.5),
    "right": (0.73, 0.5),
    "top": (0.5, 0.27),
    "bottom": (0.5, 0.73),
}
CENTRE_JITTER = 0.025
ANGLE_JITTER_DEGREES = 6.0
SUPERSAMPLING = 4  # edges are drawn at 4 times the size and averaged: smooth, still exact in colour

TEMPLATES = (
    "a {size} {colour} {shape} on a {background} background {at}",
    "a {size} {colour} {shape} {at} on a {background} background",
    "a {background} background with a {size} {colour} {shape} {at}",
    "{at} a {size} {colour} {shape} on a {background} background",
    "on a {background} background a {size} {colour} {shape} {at}",
    "{size} {colour} {shape}, {position}, {background} background",
    "there is a {size} {colour} {shape} {at} of a {background} background",
    "a {shape} that is {size} and {colour}, {at}, on {background}",
    "a picture of a {size} {colour} {shape} on {background} {at}",
    "an image of a {size} {colour} {shape} {at}, {background} background",
    "a {colour} {shape}, {size}, {at}, against a {background} background",
    "one {size} {shape} in {colour} {at} on a {background} background",
)
PARTIAL_TEMPLATES = (
    "a {colour} {shape}",
    "a {size} {colour} {shape}",
    "a {colour} {shape} on a {background} background",
    "a {colour} {shape} {at}",
    "a {size} {colour} {shape} on a {background} background",
    "a {size} {colour} {shape} {at}",
    "a {colour} {shape} on a {background} background {at}",
    "{colour} {shape} on {background}",
    "a {colour} {shape} {at} on a {background} background",
)
SYNONYMS = {
    "large": ("large", "large", "big"),
    "small": ("small", "small", "little"),
    "center": ("center", "center", "middle", "centre"),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One shape on one background; shape and background never share a colour."""

    colour: str
    shape: str
    size: str
    position: str
    background: str

    @property
    def label(self) -> str:
        """The class name of `vit_shapes`."""
        return f"{self.colour} {self.shape}"

    @property
    def is_held_out(self) -> bool:
        return (self.colour, self.shape) in HELD_OUT


def all_scenes() -> Iterator[Scene]:
    for colour in COLOURS:
        for shape in SHAPES:
            for size in SIZES:
                for position in POSITIONS:
                    for background in COLOURS:
                        if background != colour:
                            yield Scene(colour, shape, size, position, background)


def labels() -> list[str]:
    return [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def canonical_caption(scene: Scene) -> str:
    return _fill(TEMPLATES[0], scene, preposition="at")


def caption(scene: Scene, rng: random.Random) -> str:
    """Draw a sentence that says everything about the scene."""
    return _fill(rng.choice(TEMPLATES), _with_synonyms(scene, rng), rng.choice(("at", "in", "on")))


def partial_caption(scene: Scene, rng: random.Random) -> str:
    """Draw a sentence that leaves out some of background, size and position."""
    template = rng.choice(PARTIAL_TEMPLATES)
    return _fill(template, _with_synonyms(scene, rng), rng.choice(("at", "in", "on")))


def _with_synonyms(scene: Scene, rng: random.Random) -> Scene:
    return replace(
        scene,
        size=rng.choice(SYNONYMS[scene.size]),
        position=rng.choice(SYNONYMS.get(scene.position, (scene.position,))),
    )


def _fill(template: str, scene: Scene, preposition: str) -> str:
    sentence = template.format(
        colour=scene.colour,
        shape=scene.shape,
        size=scene.size,
        position=scene.position,
        background=scene.background,
        at=f"{preposition} the {scene.position}",
    )
    return sentence.replace("a orange", "an orange")


def render(scene: Scene, rng: random.Random, side: int) -> Image.Image:
    """Draw the scene with jitter, RGB, `side` pixels square."""
    canvas = side * SUPERSAMPLING
    radius = rng.uniform(*RADIUS_RANGES[scene.size]) * canvas
    x, y = (
        (c + rng.uniform(-CENTRE_JITTER, CENTRE_JITTER)) * canvas for c in CENTRES[scene.position]
    )
    angle = math.radians(rng.uniform(-ANGLE_JITTER_DEGREES, ANGLE_JITTER_DEGREES))
    mask = Image.new("L", (canvas, canvas), 0)
    _draw(ImageDraw.Draw(mask), scene.shape, x, y, radius, angle)
    mask = mask.resize((side, side), Image.Resampling.BOX)
    picture = Image.new("RGB", (side, side), COLOURS[scene.background])
    picture.paste(COLOURS[scene.colour], mask=mask)
    return picture


def _draw(
    draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, angle: float
) -> None:
    def disc(r: float, fill: int) -> None:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def polygon(polar: list[tuple[float, float]]) -> None:
        """Corners as (radius factor, degrees clockwise from the top)."""
        corners = [
            (x + radius * r * math.sin(math.radians(d) + angle),
             y - radius * r * math.cos(math.radians(d) + angle))
            for r, d in polar
        ]  # fmt: skip
        draw.polygon(corners, fill=255)

    match shape:
        case "circle":
            disc(radius * 0.95, 255)
        case "ring":
            disc(radius, 255)
            disc(radius * 0.55, 0)
        case "square":
            polygon([(1.15, 45.0 + 90.0 * i) for i in range(4)])
        case "triangle":
            polygon([(1.15, 120.0 * i) for i in range(3)])
        case "star":
            polygon([(1.15 if i % 2 == 0 else 0.48, 36.0 * i) for i in range(10)])
        case "cross":
            arm, half = 1.0, 0.32
            polygon([_polar(px, py) for px, py in _cross_corners(arm, half)])
        case _:
            raise ValueError(f"shape {shape!r} is not one of {', '.join(SHAPES)}")


def _cross_corners(arm: float, half: float) -> list[tuple[float, float]]:
    quarter = [(-half, -arm), (half, -arm), (half, -half)]
    corners = []
    for _ in range(4):
        corners += quarter
        quarter = [(-py, px) for px, py in quarter]
    return corners


def _polar(px: float, py: float) -> tuple[float, float]:
    return math.hypot(px, py), math.degrees(math.atan2(px, -py))
