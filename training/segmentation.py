"""The painted parts of an image of the shapes world: what differs from the frame, by colour.

Edges are soft: a pixel belongs to a part where the part's colour covers half of it or more. Knows
nothing about shapes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.shapes_world import COLOURS

Pixels = NDArray[np.uint8]  # [H, W, 3]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]  # [H, W]

FRAME = 0.04  # of the side
LEAST_AREA = 0.002  # of the image; the smallest shape, an arrow, has 0.01
# Distances in sRGB. The nearest colours, yellow and orange, are 71 apart.
LEAST_CONTRAST = 30.0
LEAST_OTHER_COLOUR = 45.0  # beside the line from the frame's colour to the part's
MAX_COVERAGE = 1.6  # beyond it, on that line, lies another colour


@dataclass(frozen=True, slots=True)
class Part:
    """A connected part of one colour."""

    colour: Floats  # [3]
    mask: Mask


def colour_segments(pixels: Floats, frame: Floats) -> list[Part]:
    """Find the parts of an image [H, W, 3] that differ from the frame's colour; no specks."""
    distance = np.linalg.norm(pixels - frame, axis=-1)
    return [
        part
        for region in connected(distance > LEAST_CONTRAST)
        for part in _parts_by_colour(pixels, frame, region)
    ]


def frame_colour(pixels: Floats) -> Floats:
    """Take the median of the image's frame, [3]."""
    width = max(1, round(FRAME * len(pixels)))
    sides = (pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:])
    frame: Floats = np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)
    return frame


def nearest_colour(colour: Floats) -> str:
    return list(COLOURS)[int(_nearest(colour[None])[0])]


def connected(mask: Mask) -> list[Mask]:
    """Split a mask into its connected parts, without specks; diagonal neighbours do not connect."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, ends) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    runs = list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))
    members: dict[int, list[int]] = {}
    for run, root in enumerate(_roots(runs)):
        members.setdefault(root, []).append(run)
    parts = []
    for indices in members.values():
        if sum(runs[i][2] - runs[i][1] for i in indices) < LEAST_AREA * mask.size:
            continue
        part = np.zeros_like(mask)
        for row, start, end in (runs[i] for i in indices):
            part[row, start:end] = True
        parts.append(part)
    return parts


def _roots(runs: list[tuple[int, int, int]]) -> list[int]:
    """Name one run of its connected part for each run (row, start, end), sorted by row."""
    parents = list(range(len(runs)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = run = parents[parents[run]]
        return run

    above = 0
    for run, (row, start, end) in enumerate(runs):
        while runs[above][0] < row - 1 or (runs[above][0] == row - 1 and runs[above][2] <= start):
            above += 1
        other = above
        while runs[other][0] == row - 1 and runs[other][1] < end:
            parents[root(other)] = root(run)
            other += 1
    return [root(run) for run in range(len(runs))]


def _parts_by_colour(pixels: Floats, frame: Floats, region: Mask) -> list[Part]:
    """Split a region that may hold two touching shapes of different colours."""
    parts: list[Part] = []
    rest = region
    while rest.sum() >= LEAST_AREA * rest.size:
        colour = _main_colour(pixels[rest], frame)
        offset, away = colour - frame, pixels - frame
        coverage = away @ offset / (offset @ offset)  # [H, W]
        beside = np.linalg.norm(away - coverage[..., None] * offset, axis=-1)
        has_name = np.zeros_like(rest)
        has_name[rest] = _nearest(pixels[rest]) == _nearest(colour[None])  # a highlight, say
        is_this_colour = has_name | ((beside < LEAST_OTHER_COLOUR) & (coverage < MAX_COVERAGE))
        mask = rest & is_this_colour & (coverage > 0.5)
        parts += [Part(colour, part) for part in connected(mask)]
        if not mask.any():
            break
        rest = rest & ~is_this_colour
    return parts


def _main_colour(colours: Floats, frame: Floats) -> Floats:
    """Take the median of the most frequent of the named colours, without soft edges, [3]."""
    distance = np.linalg.norm(colours - frame, axis=-1)
    core = colours[distance >= 0.8 * np.quantile(distance, 0.9)]
    names = _nearest(core)
    main: Floats = np.median(core[names == np.bincount(names).argmax()], axis=0)
    return main


def _nearest(colours: Floats) -> NDArray[np.intp]:
    """Index of the nearest named colour, [N]."""
    named = np.array(list(COLOURS.values()), dtype=np.float64)
    distances = np.linalg.norm(colours[:, None] - named, axis=-1)
    nearest: NDArray[np.intp] = distances.argmin(axis=1)
    return nearest
