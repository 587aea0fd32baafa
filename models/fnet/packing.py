"""Segments of one text to one row: [CLS] a [SEP] b [SEP], cut and padded to a length.

Cuts as KerasHub's `MultiSegmentPacker` does (keras_hub/src/layers/preprocessing, 0.32.0). Knows
nothing about vocabularies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Truncation = Literal["round_robin", "waterfall"]


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """The ids that a row is packed with."""

    start: int
    end: int
    padding: int


@dataclass(frozen=True, slots=True)
class PackedText:
    """One row for a backbone."""

    token_ids: tuple[int, ...]
    segment_ids: tuple[int, ...]  # 0, 1, ...; a separator belongs to what it ends, padding is 0
    num_tokens: int  # without the padding


def pack(
    segments: Sequence[Sequence[int]],
    special: SpecialIds,
    length: int,
    truncation: Truncation = "round_robin",
) -> PackedText:
    """Join segments, cut and padded to `length`.

    "round_robin" takes a token of each segment in turn for as long as there is room, "waterfall"
    fills up with the first one first.

    Raises ValueError where there is no room even for the separators.
    """
    room = length - 1 - len(segments)
    if room < 0:
        raise ValueError(f"{len(segments)} segments need at least {1 + len(segments)} tokens")
    cut = _round_robin if truncation == "round_robin" else _waterfall
    token_ids, segment_ids = [special.start], [0]
    sizes = cut([len(segment) for segment in segments], room)
    for index, (segment, size) in enumerate(zip(segments, sizes, strict=True)):
        token_ids += [*segment[:size], special.end]
        segment_ids += [index] * (size + 1)
    num_padding = length - len(token_ids)
    return PackedText(
        token_ids=(*token_ids, *[special.padding] * num_padding),
        segment_ids=(*segment_ids, *[0] * num_padding),
        num_tokens=len(token_ids),
    )


def _round_robin(sizes: Sequence[int], room: int) -> list[int]:
    turns = sorted((turn, index) for index, size in enumerate(sizes) for turn in range(size))
    taken = [index for _, index in turns[:room]]
    return [taken.count(index) for index in range(len(sizes))]


def _waterfall(sizes: Sequence[int], room: int) -> list[int]:
    taken = []
    for size in sizes:
        taken.append(min(size, room))
        room -= taken[-1]
    return taken
