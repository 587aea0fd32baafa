"""Sizes of a model, read off the shapes of weights that come without a configuration.

Knows nothing about any one model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.errors import PresetFileError


@dataclass(frozen=True, slots=True)
class StoredShapes:
    """The shapes of one model's tensors; `kind` says for messages which model that should be."""

    where: Path
    kind: str
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def below(
        cls, prefix: str, where: Path, kind: str, shapes: Mapping[str, tuple[int, ...]]
    ) -> Self:
        """Take the tensors whose names start with `prefix`, and that away from them."""
        own = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
        return cls(where, kind, own)

    def of(self, name: str, num_axes: int) -> tuple[int, ...]:
        """Raises PresetFileError for a tensor that is missing or has another number of axes."""
        shape = self.shapes.get(name)
        if shape is None or len(shape) != num_axes or 0 in shape:
            got = f"has no {name}" if shape is None else f"has {name} of {list(shape)}"
            raise PresetFileError(f"{self.where} is no {self.kind}: it {got}")
        return shape

    def count(self, blocks: str) -> int:
        """Count blocks that are numbered from 0: by the highest number, so that none is missed."""
        pattern = re.compile(rf"{re.escape(blocks)}\.(\d+)\.")
        numbers = [int(match[1]) for name in self.shapes if (match := pattern.match(name))]
        return max(numbers, default=-1) + 1
