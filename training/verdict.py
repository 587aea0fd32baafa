"""Compare what a sentence says with what an image shows, part by part.

Knows nothing about pixels. Items are laid to the shapes so that most colours and shapes agree; of
several seen in excess, the largest count.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise, permutations
from math import hypot

from training.geometry import DetectedShapes, SeenShape
from training.shapes_world import CENTRES, RADII, SIZES, Item, Layout, Scene

Match = Sequence[tuple[Item, SeenShape | None]]  # None where too few shapes are seen


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether each part is right; None for what was not said."""

    count: bool | None
    colour: bool | None
    shape: bool | None
    size: bool | None
    place: bool | None
    relation: bool | None
    background: bool | None

    @property
    def is_right(self) -> bool:
        return False not in astuple(self)


def compare(said: Scene, detected: DetectedShapes) -> Verdict:
    """Judge the image by all that is said; an unsaid background must only be another colour."""
    match = _best_match(said, detected)
    return Verdict(
        count=len(detected.shapes) == len(said.items),
        colour=_all_agree([(item.colour, seen.colour if seen else None) for item, seen in match]),
        shape=_all_agree([(item.shape, seen.shape if seen else None) for item, seen in match]),
        size=_is_size_right(said.layout, match),
        place=None if said.place is None else _nearest_place(match[0][1]) == said.place,
        relation=_is_in_order(said.layout, match),
        background=_is_background_right(said, detected),
    )


def _best_match(said: Scene, detected: DetectedShapes) -> Match:
    """Lay items to shapes; of equally good ways the one in the layout's order."""
    largest = sorted(detected.shapes, key=lambda seen: -seen.radius)[: len(said.items)]
    largest.sort(key=lambda seen: seen.y if said.layout is Layout.COLUMN else seen.x)
    in_order = largest + [None] * (len(said.items) - len(largest))
    matches = [list(zip(said.items, order, strict=True)) for order in permutations(in_order)]
    return max(matches, key=_num_agreements)


def _num_agreements(match: Match) -> int:
    return sum(
        (item.colour == seen.colour) + (item.shape == seen.shape)
        for item, seen in match
        if seen is not None
    )


def _all_agree(pairs: Sequence[tuple[str | None, str | None]]) -> bool | None:
    answers = [said == seen for said, seen in pairs if said is not None]
    return all(answers) if answers else None


def _is_size_right(layout: Layout, match: Match) -> bool | None:
    """A single shape must have its size; several at most the next one, and the larger be larger."""
    sized = [(item.size, seen) for item, seen in match if item.size is not None]
    if not sized:
        return None
    tolerance = 0 if layout is Layout.ONE else 1
    radii: list[tuple[int, float]] = []  # the size that is said, the radius that is seen
    for size, seen in sized:
        if seen is None or abs(_size_index(layout, seen.radius) - SIZES.index(size)) > tolerance:
            return False
        radii.append((SIZES.index(size), seen.radius))
    return all(
        smaller[0] == larger[0] or smaller[1] < larger[1]
        for smaller, larger in pairwise(sorted(radii))
    )


def _size_index(layout: Layout, radius: float) -> int:
    """Number of the size, its bounds half-way between the drawn ranges."""
    ranges = [RADII[Layout.ROW if layout is Layout.TWO else layout][size] for size in SIZES]
    return sum(radius > (below[1] + above[0]) / 2 for below, above in pairwise(ranges))


def _nearest_place(seen: SeenShape | None) -> str | None:
    if seen is None:
        return None
    return min(
        CENTRES, key=lambda name: hypot(seen.x - CENTRES[name][0], seen.y - CENTRES[name][1])
    )


def _is_in_order(layout: Layout, match: Match) -> bool | None:
    """Whether the first is left of the second and rather beside than above it, or the like."""
    if layout not in (Layout.ROW, Layout.COLUMN):
        return None
    first, second = (seen for _, seen in match)
    if first is None or second is None:
        return False
    right, down = second.x - first.x, second.y - first.y
    return right > abs(down) if layout is Layout.ROW else down > abs(right)


def _is_background_right(said: Scene, detected: DetectedShapes) -> bool | None:
    if said.background is not None:
        return detected.background == said.background
    return False if detected.background in {seen.colour for seen in detected.shapes} else None
