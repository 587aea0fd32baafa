"""The keys of a Flux LoRA file put together: which of our rows get which tensors.

Strict: every key must land. Knows nothing about the values.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from models.checkpoints.weights import some
from models.errors import WeightsError
from models.flux.formats.lora_keys import Part, Rows, read_key, without_dots

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One module's adapter: the names of its tensors, and the rows that it adds to."""

    module: str  # as the file names it, without prefix
    rows: Rows
    is_clip: bool
    a: str
    b: str
    alpha: str | None


@dataclass(frozen=True, slots=True)
class _Module:
    name: str
    is_clip: bool


def place(
    file: Path, shapes: Shapes, transformer: Mapping[str, Rows], clip: Mapping[str, Rows] | None
) -> list[Entry]:
    """Find the rows of every module of a file.

    Raises WeightsError that names the keys of no adapter, of modules that are not there, of CLIP
    where `clip` is None, those that are not whole, do not fit or come twice.
    """
    grouped, unknown = _group(shapes)
    entries: list[Entry] = []
    homeless: list[str] = []
    for_clip: list[str] = []
    halves: list[str] = []
    for module, keys in grouped.items():
        known = clip if module.is_clip else transformer
        rows = None if known is None else known.get(without_dots(module.name))
        if known is None:
            for_clip += keys.values()
        elif rows is None:
            homeless += keys.values()
        elif not keys.keys() >= {Part.A, Part.B}:
            halves += keys.values()
        else:
            a, b, alpha = keys[Part.A], keys[Part.B], keys.get(Part.ALPHA)
            entries.append(Entry(module.name, rows, module.is_clip, a, b, alpha))
    faults = {
        "of no low-rank adapter": unknown,
        "for the CLIP text encoder, which was not given": for_clip,
        "for layers that are not there": homeless,
        "without their other half": halves,
        "of a wrong shape": [fault for entry in entries for fault in _shape_faults(entry, shapes)],
        "for outputs that others are for": _overlaps(entries),
    }
    said = "; ".join(f"{kind}: {some(sorted(keys))}" for kind, keys in faults.items() if keys)
    if said or not entries:
        raise WeightsError(f"{file}: {said or 'holds no adapters'}")
    return entries


def _group(keys: Shapes) -> tuple[dict[_Module, dict[Part, str]], list[str]]:
    """Put the keys of each module together, and those that belong to none."""
    grouped: dict[_Module, dict[Part, str]] = {}
    unknown = []
    for name in keys:
        key = read_key(name)
        own = {} if key is None else grouped.setdefault(_Module(key.module, key.is_clip), {})
        if key is None or key.part in own:
            unknown.append(name)
        else:
            own[key.part] = name
    return grouped, unknown


def _shape_faults(entry: Entry, shapes: Shapes) -> Iterator[str]:
    rank = shapes[entry.b][-1] if shapes[entry.b] else 0
    wanted = {entry.a: (rank, entry.rows.layer.in_features), entry.b: (entry.rows.count, rank)}
    for key, shape in wanted.items():
        if shapes[key] != shape or not rank:
            yield f"{key} is {list(shapes[key])}, for {list(shape)}"
    if entry.alpha is not None and shapes[entry.alpha] not in {(), (1,)}:
        yield f"{entry.alpha} is {list(shapes[entry.alpha])}, for one number"


def _overlaps(entries: list[Entry]) -> list[str]:
    in_order = sorted(entries, key=lambda each: (each.is_clip, each.rows.module, each.rows.first))
    return [
        f"{one.b} and {other.b}"
        for one, other in pairwise(in_order)
        if one.rows.layer is other.rows.layer and other.rows.first < one.rows.first + one.rows.count
    ]
