"""Who makes room, as a pure decision."""

import random

import pytest

from worker.eviction import MemoryNeed, Resident, choose_victims, fits

GB = 10**9


def held(weights_gb: float, used_at: float, pinned: bool = False, work_gb: float = 0) -> Resident:
    return Resident(MemoryNeed(int(weights_gb * GB), int(work_gb * GB)), used_at, pinned)


def test_nobody_leaves_where_there_is_room() -> None:
    residents = {"a": held(4, 1), "b": held(4, 2)}
    assert choose_victims("c", MemoryNeed(2 * GB), 10 * GB, residents) == ()
    assert choose_victims("c", MemoryNeed(200 * GB), None, residents) == ()


def test_the_least_recently_used_leaves() -> None:
    residents = {"a": held(4, 3), "b": held(4, 1), "c": held(1, 2)}
    assert choose_victims("d", MemoryNeed(4 * GB), 10 * GB, residents) == ("b",)


def test_a_pinned_one_stays() -> None:
    residents = {"a": held(4, 1, pinned=True), "b": held(4, 2)}
    assert choose_victims("c", MemoryNeed(4 * GB), 10 * GB, residents) == ("b",)
    assert choose_victims("c", MemoryNeed(7 * GB), 10 * GB, residents) is None


def test_a_small_one_does_not_leave_for_nothing() -> None:
    residents = {"small": held(1, 1), "large": held(8, 2)}
    assert choose_victims("c", MemoryNeed(8 * GB), 10 * GB, residents) == ("large",)


def test_only_one_model_works_at_a_time() -> None:
    residents = {"a": held(4, 1, work_gb=3), "b": held(2, 2, work_gb=1)}
    assert choose_victims("c", MemoryNeed(1 * GB, 2 * GB), 10 * GB, residents) == ()
    assert choose_victims("c", MemoryNeed(1 * GB, 4 * GB), 10 * GB, residents) == ("a",)


@pytest.mark.parametrize("seed", range(50))
def test_the_budget_is_never_exceeded_and_nobody_leaves_too_much(seed: int) -> None:
    rng = random.Random(seed)
    residents = {
        f"m{i}": held(rng.randint(1, 5), rng.random(), rng.random() < 0.2, rng.randint(0, 2))
        for i in range(6)
    }
    need, budget = MemoryNeed(rng.randint(1, 8) * GB, rng.randint(0, 3) * GB), 16 * GB
    victims = choose_victims("new", need, budget, residents)
    needs = {name: one.need for name, one in residents.items()} | {"new": need}
    if victims is None:
        pinned = {name: needs[name] for name, one in residents.items() if one.is_pinned}
        assert not fits(pinned | {"new": need}, budget)
        return
    staying = {name: one for name, one in needs.items() if name not in victims}
    assert not any(residents[name].is_pinned for name in victims)
    assert fits(staying, budget)
    for victim in victims:
        assert not fits(staying | {victim: needs[victim]}, budget)
