"""Which rows share a forward: decisions without tensors, models or Redis.

A row is one image or one text. Rows go together when model and shape are the same: nothing is ever
padded to fit a neighbour, so a row's answer does not depend on its batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchKey:
    model: str
    shape: tuple[int, ...]  # of the pixels, or the padded number of tokens


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    job_id: str
    index: int  # place within the job
    key: BatchKey
    prepared: T


def plan(rows: Sequence[Row[T]], max_rows: int) -> list[list[Row[T]]]:
    """Group rows by key, oldest first, in forwards of at most `max_rows`."""
    by_key: dict[BatchKey, list[Row[T]]] = {}
    for row in rows:
        by_key.setdefault(row.key, []).append(row)
    return [
        group[start : start + max_rows]
        for group in by_key.values()
        for start in range(0, len(group), max_rows)
    ]
