"""What an image of the shapes world shows, by its pixels alone: no model, numpy and Pillow only.

The background is the colour of the frame, shapes are the connected parts that differ from it. A
part has the name of the ideal shape that it overlaps most (intersection over union), over all
places, radii and small angles: a coarse search among templates of one area around one middle, then
a fine one among masks drawn by the shapes world itself. Lengths are pixels unless they say more.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.segmentation import Mask, Pixels, colour_segments, frame_colour, nearest_colour
from training.shapes_world import SHAPES, Placed, draw_mask

MAX_PARTS = 8  # the largest; an image with more is of no scene
MAX_ANGLE_DEGREES = 12.0
TEMPLATE_ANGLES_DEGREES = (-12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0)
TEMPLATE_SIDE = 48
TEMPLATE_REACH = 1.25  # from the middle to the frame, in roots of the area: an arrow reaches 1.1
DRAWN_SIDE, DRAWN_RADIUS = 256, 0.3  # of the shapes that templates are made of

NUM_REFINED, MAX_LAG = 3, 0.12  # names that the coarse search leaves open
WINDOW_REACH = 1.4  # radii; the ideal shapes reach 1.25
FIRST_STEP_PX, FIRST_STEP_RADII, FIRST_STEP_DEGREES = 0.5, 0.03, 3.0
LEAST_RADIUS_PX = 2.0
NUM_ROUNDS = 4  # the steps halve from one to the next
SOFT_WEIGHT = 0.05  # breaks ties between equal overlaps by how well the soft edges fit


@dataclass(frozen=True, slots=True)
class SeenShape:
    """One shape; middle and radius in fractions of the side, overlap in [0, 1]."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    overlap: float


@dataclass(frozen=True, slots=True)
class DetectedShapes:
    """What the image shows; the shapes from left to right."""

    background: str
    shapes: tuple[SeenShape, ...]


def detect_shapes(image: Pixels) -> DetectedShapes:
    """Look at a square image [H, W, 3] uint8."""
    pixels, side = image.astype(np.float64), len(image)
    frame = frame_colour(pixels)
    seen = []
    parts = sorted(colour_segments(pixels, frame), key=lambda part: -int(part.mask.sum()))
    for part in parts[:MAX_PARTS]:
        fit = _best_fit(part.mask, SHAPES)
        placed = fit.placed
        seen.append(
            SeenShape(
                colour=nearest_colour(part.colour),
                shape=placed.shape,
                x=placed.x / side,
                y=placed.y / side,
                radius=placed.radius / side,
                overlap=fit.overlap,
            )
        )
    return DetectedShapes(nearest_colour(frame), tuple(sorted(seen, key=lambda shape: shape.x)))


def overlap_with(mask: Mask, shape: str) -> float:
    """Say how well a mask [H, W] fits the best-fitting ideal shape of this name, in [0, 1]."""
    return _best_fit(mask, (shape,)).overlap


@dataclass(frozen=True, slots=True)
class _Fit:
    placed: Placed
    overlap: float
    score: float  # the overlap, and a little for soft edges


def _best_fit(mask: Mask, shapes: Iterable[str]) -> _Fit:
    area, x, y = _moments(mask)
    near = sorted(_coarse_fits(mask, area, x, y, shapes), key=lambda fit: -fit.overlap)
    open_names = [fit for fit in near[:NUM_REFINED] if fit.overlap > near[0].overlap - MAX_LAG]
    fine = [_Window(mask, fit.placed).refine(fit.placed) for fit in open_names]
    return max(fine, key=lambda fit: fit.score)


def _moments(mask: Mask) -> tuple[float, float, float]:
    """Area and middle."""
    rows, columns = np.nonzero(mask)
    return float(len(rows)), float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


@dataclass(frozen=True, slots=True)
class _Templates:
    """Every shape at every angle: drawn as `placed` around its own middle, with radius 1."""

    placed: tuple[Placed, ...]  # middle (x, y) and radius for a part of area 1 around (0, 0)
    masks: NDArray[np.float32]  # [N, TEMPLATE_SIDE²]


@cache
def _templates() -> _Templates:
    placed, masks = [], []
    for shape in SHAPES:
        for degrees in TEMPLATE_ANGLES_DEGREES:
            drawn = Placed(shape, 0.5, 0.5, DRAWN_RADIUS, math.radians(degrees))
            mask = np.asarray(draw_mask(drawn, DRAWN_SIDE)) > 127
            area, x, y = _moments(mask)
            root, middle = math.sqrt(area), DRAWN_SIDE / 2
            radius = DRAWN_RADIUS * DRAWN_SIDE / root
            placed.append(
                replace(drawn, x=(middle - x) / root, y=(middle - y) / root, radius=radius)
            )
            masks.append(_normalised(mask, area, x, y))
    return _Templates(tuple(placed), np.stack(masks))


def _normalised(mask: Mask, area: float, x: float, y: float) -> NDArray[np.float32]:
    """Move and scale a mask so that its middle and area are always the same, [TEMPLATE_SIDE²]."""
    reach = TEMPLATE_REACH * math.sqrt(area)
    step = 2 * reach / TEMPLATE_SIDE
    moved = Image.fromarray(mask.astype(np.uint8) * 255).transform(
        (TEMPLATE_SIDE, TEMPLATE_SIDE),
        Image.Transform.AFFINE,
        (step, 0, x - reach, 0, step, y - reach),
        Image.Resampling.BILINEAR,
    )
    return (np.asarray(moved).ravel() > 127).astype(np.float32)


def _coarse_fits(mask: Mask, area: float, x: float, y: float, shapes: Iterable[str]) -> list[_Fit]:
    """Place the best template of each name over the mask."""
    templates, part = _templates(), _normalised(mask, area, x, y)
    both = templates.masks @ part
    overlaps = both / (templates.masks.sum(axis=1) + part.sum() - both)
    root = math.sqrt(area)
    best: dict[str, _Fit] = {}
    for overlap, placed in zip(overlaps.tolist(), templates.placed, strict=True):
        if placed.shape in best and best[placed.shape].overlap >= overlap:
            continue
        moved = replace(
            placed, x=x + placed.x * root, y=y + placed.y * root, radius=placed.radius * root
        )
        best[placed.shape] = _Fit(moved, overlap, overlap)
    return [best[shape] for shape in shapes]


class _Window:
    """The part of an image around one mask, in which ideal shapes are laid over it."""

    def __init__(self, mask: Mask, around: Placed) -> None:
        reach = math.ceil(WINDOW_REACH * around.radius)
        self._left, self._top = round(around.x) - reach, round(around.y) - reach
        self._side = 2 * reach
        padded = np.pad(mask, self._side)
        rows = slice(self._top + self._side, self._top + 2 * self._side)
        columns = slice(self._left + self._side, self._left + 2 * self._side)
        self._mask = padded[rows, columns]
        self._is_inside = np.pad(np.ones_like(mask), self._side)[rows, columns]
        self._num_outside = int(mask.sum() - self._mask.sum())

    def refine(self, placed: Placed) -> _Fit:
        """Move, scale and turn the ideal shape as long as it fits better."""
        fit = self._fit(placed)
        for halvings in range(NUM_ROUNDS):
            for step in _steps(placed.radius, 0.5**halvings):
                fit = self._walk(fit, step)
        return fit

    def _walk(self, fit: _Fit, step: "_Step") -> _Fit:
        for sign in (1.0, -1.0):
            while (further := self._fit(step.taken_from(fit.placed, sign))).score > fit.score:
                fit = further
        return fit

    def _fit(self, placed: Placed) -> _Fit:
        if abs(placed.angle) > math.radians(MAX_ANGLE_DEGREES) or placed.radius < LEAST_RADIUS_PX:
            return _Fit(placed, 0.0, 0.0)
        within = replace(
            placed,
            x=(placed.x - self._left) / self._side,
            y=(placed.y - self._top) / self._side,
            radius=placed.radius / self._side,
        )
        coverage = np.asarray(draw_mask(within, self._side)) * self._is_inside
        ideal = coverage > 127
        both = int(np.count_nonzero(ideal & self._mask))
        either = int(np.count_nonzero(ideal | self._mask)) + self._num_outside
        overlap = both / either
        softness = float(np.abs(coverage / 255.0 - self._mask).sum()) / either
        return _Fit(placed, overlap, overlap - SOFT_WEIGHT * softness)


@dataclass(frozen=True, slots=True)
class _Step:
    x: float = 0.0
    y: float = 0.0
    radius: float = 0.0
    angle: float = 0.0

    def taken_from(self, placed: Placed, sign: float) -> Placed:
        return Placed(
            placed.shape,
            placed.x + sign * self.x,
            placed.y + sign * self.y,
            placed.radius + sign * self.radius,
            placed.angle + sign * self.angle,
        )


def _steps(radius: float, scale: float) -> tuple[_Step, ...]:
    return (
        _Step(x=FIRST_STEP_PX * scale),
        _Step(y=FIRST_STEP_PX * scale),
        _Step(radius=FIRST_STEP_RADII * radius * scale),
        _Step(angle=math.radians(FIRST_STEP_DEGREES) * scale),
    )
