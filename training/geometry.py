"""What a picture of the shapes world shows, by its pixels alone: no model, numpy only.

The background is the colour of the frame, the shape whatever differs from it. The shape's name
follows from how its outline's distance to the middle varies once around, and from whether it has a
hole.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.shapes_world import CENTRES, COLOURS

Pixels = NDArray[np.uint8]  # [H, W, 3]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]  # [H, W]

FRAME = 0.04  # of the side
NUM_ANGLES = 180
NUM_RADII = 96
MAX_RADIUS = 0.4  # of the side; beyond the largest shape
MIN_SHAPE_PIXELS = 12

# Radii below are fractions of the largest one.
HOLE_RADIUS = 0.3  # the ring's hole reaches 0.55
ROUND_AMPLITUDE = 0.055  # strongest harmonic of the outline: circle 0.01, square 0.11, others more
CONCAVE_RADIUS = 0.58  # smallest radius: square 0.71, cross 0.43


@dataclass(frozen=True, slots=True)
class Sight:
    """What the picture shows; None for a shape that is not there."""

    background: str
    colour: str | None
    shape: str | None
    position: str | None


def see(picture: Pixels) -> Sight:
    pixels = picture.astype(np.float64)
    frame = _frame_colour(pixels)
    background = _nearest_colour(frame)
    distance = np.linalg.norm(pixels - frame, axis=-1)
    is_other = distance > 0.6 * np.quantile(distance, 0.995)
    if np.quantile(distance, 0.995) < 40 or is_other.sum() < MIN_SHAPE_PIXELS:
        return Sight(background, None, None, None)
    paint = np.median(pixels[is_other], axis=0)
    coverage = (pixels - frame) @ (paint - frame) / np.sum((paint - frame) ** 2)
    mask = _largest_part(coverage > 0.5)
    row, column = (float(indices.mean()) for indices in np.nonzero(mask))
    return Sight(
        background=background,
        colour=_nearest_colour(paint),
        shape=_shape(mask, row, column),
        position=_position(mask, row, column),
    )


def _frame_colour(pixels: Floats) -> Floats:
    width = max(1, round(FRAME * len(pixels)))
    sides = (pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:])
    frame: Floats = np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)
    return frame


def _nearest_colour(colour: Floats) -> str:
    return min(COLOURS, key=lambda name: float(np.linalg.norm(colour - np.array(COLOURS[name]))))


def _largest_part(mask: Mask) -> Mask:
    """Keep the largest of the connected parts, so that a speck moves nothing."""
    rest, largest = mask.copy(), np.zeros_like(mask)
    while rest.sum() > largest.sum():
        part = np.zeros_like(mask)
        part.flat[np.flatnonzero(rest)[0]] = True
        part = _flood(part, rest)
        rest &= ~part
        if part.sum() > largest.sum():
            largest = part
    return largest


def _flood(seed: Mask, allowed: Mask) -> Mask:
    while True:
        grown = seed.copy()
        grown[1:] |= seed[:-1]
        grown[:-1] |= seed[1:]
        grown[:, 1:] |= seed[:, :-1]
        grown[:, :-1] |= seed[:, 1:]
        grown &= allowed
        if (grown == seed).all():
            return seed
        seed = grown


def _position(mask: Mask, row: float, column: float) -> str:
    x, y = (column + 0.5) / mask.shape[1], (row + 0.5) / mask.shape[0]
    return min(CENTRES, key=lambda name: np.hypot(x - CENTRES[name][0], y - CENTRES[name][1]))


def _shape(mask: Mask, row: float, column: float) -> str:
    rays = _rays(mask, row, column)
    outline = _outline(rays)
    largest = outline.max()
    inner = rays[:, : max(1, int(HOLE_RADIUS * largest))]
    if inner.mean() < 0.5:
        return "ring"
    outline = outline / largest
    harmonics = np.abs(np.fft.rfft(outline - outline.mean()))[: 5 + 1] / NUM_ANGLES
    fold = max((3, 4, 5), key=lambda count: harmonics[count])
    if 2 * harmonics[fold] < ROUND_AMPLITUDE:
        return "circle"
    if fold == 4:
        return "square" if np.quantile(outline, 0.05) > CONCAVE_RADIUS else "cross"
    return "triangle" if fold == 3 else "star"


def _rays(mask: Mask, row: float, column: float) -> Mask:
    """Sample the mask along rays from its middle, [angle, radius]."""
    angles = np.linspace(0, 2 * np.pi, NUM_ANGLES, endpoint=False)[:, None]
    radii = np.linspace(0, MAX_RADIUS * len(mask), NUM_RADII)
    rows = np.rint(row + radii * np.sin(angles)).astype(int)
    columns = np.rint(column + radii * np.cos(angles)).astype(int)
    height, width = mask.shape
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rays: Mask = mask[rows.clip(0, height - 1), columns.clip(0, width - 1)] & is_inside
    return rays


def _outline(rays: Mask) -> Floats:
    """The last radius that is still inside, per angle, smoothed over 3 angles."""
    last = np.where(rays.any(axis=1), NUM_RADII - rays[:, ::-1].argmax(axis=1), 1).astype(
        np.float64
    )
    smooth: Floats = (np.roll(last, 1) + last + np.roll(last, -1)) / 3
    return smooth
