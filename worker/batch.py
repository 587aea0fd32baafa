"""Which rows share a forward: decisions without tensors, models or Redis.

A row is one image or one text. Rows go together when model and shape are the same: nothing is ever
padded to fit a neighbour, so a row's answer does not depend on its batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchKey:
    model: str
    shape: tuple[int, ...]  # of the pixels, or the padded number of tokens


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    key: BatchKey
    prepared: T


class Keyed(Protocol):
    @property
    def key(self) -> BatchKey: ...


K = TypeVar("K", bound=Keyed)


def next_forward(rows: Sequence[K], max_rows: int) -> tuple[list[K], list[K]]:
    """Cut the rows in those of the first one's key, `max_rows` at most, and those that are left."""
    key = rows[0].key
    group: list[K] = []
    left: list[K] = []
    for row in rows:
        (group if row.key == key and len(group) < max_rows else left).append(row)
    return group, left
