"""Which models make room for another on one device: a decision without models, torch or Redis."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a model takes of the device's memory.

    weights_bytes  as long as it is resident
    work_bytes     for the values of one batch, while it works; one model works at a time
    host_bytes     of the host's memory, for what is streamed, as long as it is loaded
    """

    weights_bytes: int
    work_bytes: int = 0
    host_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Resident:
    """A model on the device. `last_used_at` in seconds of any clock."""

    need: MemoryNeed
    last_used_at: float
    is_pinned: bool


def fits(needs: Mapping[str, MemoryNeed], budget_bytes: int | None) -> bool:
    """Whether models fit together; None: there is no limit."""
    return budget_bytes is None or total_bytes(needs) <= budget_bytes


def total_bytes(needs: Mapping[str, MemoryNeed]) -> int:
    weights = sum(need.weights_bytes for need in needs.values())
    return weights + max((need.work_bytes for need in needs.values()), default=0)


def choose_victims(
    name: str, need: MemoryNeed, budget_bytes: int | None, residents: Mapping[str, Resident]
) -> tuple[str, ...] | None:
    """Name those that leave so that a model fits: the least recently used, and no more of them.

    None where it does not fit even beside the pinned ones alone.
    """
    needs = {other: resident.need for other, resident in residents.items()} | {name: need}
    movable = [other for other, resident in residents.items() if not resident.is_pinned]
    movable.sort(key=lambda other: residents[other].last_used_at)
    victims: list[str] = []
    while not fits(_without(needs, victims), budget_bytes):
        if not movable:
            return None
        victims.append(movable.pop(0))
    for victim in reversed(victims[:-1]):  # a small one that left before a large one may stay
        spared = [other for other in victims if other != victim]
        if fits(_without(needs, spared), budget_bytes):
            victims = spared
    return tuple(victims)


def _without(needs: Mapping[str, MemoryNeed], names: list[str]) -> dict[str, MemoryNeed]:
    return {name: need for name, need in needs.items() if name not in names}
