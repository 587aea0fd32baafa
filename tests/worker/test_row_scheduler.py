"""Which rows make the next forward, on a simulated device."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from worker.row_scheduler import MAX_GROUPS, Group, RowScheduler

SMALL, LARGE = Group("m/1024", "m", 64, 32), Group("m/65536", "m", 4096, 32)
NO_LORAS: frozenset[str] = frozenset()
STEP_S = {SMALL: 1.0, LARGE: 10.0}


@dataclass(eq=False, slots=True)
class Row:
    name: str
    group: Group = SMALL
    steps_left: int = 4
    num_places: int = 1
    loras: frozenset[str] = NO_LORAS


@dataclass(slots=True)
class Device:
    """A step costs its group's seconds, and each LoRA in it some more for each place."""

    places: Mapping[Group, int] = field(default_factory=dict)
    lora_s: float = 0.0

    def places_that_pay(self, group: Group) -> int:
        return self.places.get(group, 4)

    def step_s(self, group: Group, num_places: int, loras: frozenset[str]) -> float:
        return STEP_S.get(group, 1.0) + self.lora_s * num_places * len(loras)


class Simulation:
    """Runs forwards one after the other, and keeps account."""

    def __init__(self, device: Device | None = None) -> None:
        self.device = device or Device()
        self.scheduler: RowScheduler[Row] = RowScheduler(self.device)
        self.now = 0.0
        self.used_s: defaultdict[Group, float] = defaultdict(float)
        self.ended_at: dict[str, float] = {}
        self.forwards: list[list[str]] = []

    def arrive(self, *rows: Row) -> None:
        for row in rows:
            self.scheduler.expect(row.group, row.name, row.num_places)
            self.scheduler.add(row.group, row.name, [row])

    def step(self) -> list[str]:
        rows = self.scheduler.next()
        if not rows:
            return []
        assert len({row.group for row in rows}) == 1
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)
        loras = frozenset[str]().union(*(row.loras for row in rows))
        places = sum(row.num_places for row in rows)
        seconds = self.device.step_s(rows[0].group, places, loras)
        self.now += seconds
        self.used_s[rows[0].group] += seconds
        for row in rows:
            row.steps_left -= 1
            if not row.steps_left:
                self.ended_at[row.name] = self.now
        self.scheduler.note_step(rows, seconds, self.now)
        self.forwards.append(names)
        return names

    def run(self, num_steps: int = 10_000) -> None:
        for _ in range(num_steps):
            if not self.step():
                return


def rows_of(group: Group, names: str, steps: int = 4) -> list[Row]:
    return [Row(name, group, steps) for name in names]


def test_nothing_is_next_where_nothing_is_ready() -> None:
    simulation = Simulation()
    simulation.scheduler.expect(SMALL, "a", 1)
    assert simulation.scheduler.next() == []
    assert not simulation.scheduler.has_rows


def test_a_row_joins_at_the_next_step_and_leaves_when_it_is_done() -> None:
    simulation = Simulation()
    simulation.arrive(Row("long", steps_left=4))
    simulation.step()
    simulation.arrive(Row("short", steps_left=2))
    simulation.run()
    assert simulation.forwards == [["long"], ["long", "short"], ["long", "short"], ["long"]]


def test_no_more_rows_run_than_pay_and_the_first_come_are_first() -> None:
    simulation = Simulation(Device({SMALL: 2}))
    simulation.arrive(*rows_of(SMALL, "abc", steps=2))
    simulation.run()
    assert simulation.forwards == [["a", "b"], ["a", "b"], ["c"], ["c"]]


def test_a_row_that_runs_never_gives_way_to_a_later_one_of_its_group() -> None:
    simulation = Simulation(Device({SMALL: 3}))
    simulation.arrive(Row("a", steps_left=9), Row("b", steps_left=3))
    simulation.step()
    simulation.arrive(*rows_of(SMALL, "cdef", steps=2))
    while "b" not in simulation.ended_at:
        assert {"a", "b"} <= set(simulation.step())
    simulation.run()
    assert sum("a" in names for names in simulation.forwards) == 9
    assert len(simulation.forwards) >= 9
    assert all("a" in names for names in simulation.forwards[:9])


def test_a_negative_prompt_takes_two_places() -> None:
    simulation = Simulation(Device({SMALL: 3}))
    simulation.arrive(Row("a", num_places=2), Row("b", num_places=2), Row("c"))
    assert simulation.step() == ["a"]  # c stands behind b


def test_a_row_of_two_places_runs_alone_where_one_pays() -> None:
    simulation = Simulation(Device({SMALL: 1}))
    simulation.arrive(Row("a", num_places=2))
    assert simulation.step() == ["a"]


def test_two_groups_get_equal_shares_of_the_device() -> None:
    simulation = Simulation(Device({LARGE: 1}))
    simulation.arrive(*rows_of(LARGE, "a", steps=1000), *rows_of(SMALL, "bc", steps=1000))
    simulation.run(400)
    assert simulation.used_s[SMALL] == pytest.approx(simulation.used_s[LARGE], abs=10.0)
    assert simulation.used_s[SMALL] > 300


def test_a_small_image_does_not_stand_behind_a_large_ones_run() -> None:
    simulation = Simulation(Device({LARGE: 1}))
    simulation.arrive(Row("large", LARGE, steps_left=28))
    simulation.step()
    arrived_at = simulation.now
    simulation.arrive(Row("small", SMALL, steps_left=20))
    simulation.run()
    # its own twenty seconds, and as many of the other's, and the step that was running
    assert simulation.ended_at["small"] - arrived_at <= 2 * 20 + 10
    assert simulation.ended_at["large"] == 28 * 10 + 20


def test_a_newcomer_has_no_claim_on_the_time_before_it_came() -> None:
    simulation = Simulation(Device({LARGE: 1}))
    simulation.arrive(Row("old", SMALL, steps_left=1000))
    simulation.run(500)
    before = simulation.used_s[SMALL]
    simulation.arrive(Row("new", LARGE, steps_left=1000))
    simulation.run(440)
    assert simulation.used_s[SMALL] - before == pytest.approx(simulation.used_s[LARGE], abs=10.0)


def test_a_group_that_leaves_and_comes_back_at_once_gains_nothing() -> None:
    simulation = Simulation(Device({LARGE: 1}))
    simulation.arrive(Row("small", SMALL, steps_left=10_000))
    for number in range(600):
        if simulation.ended_at.keys() >= {f"large {number - 1}"} or number == 0:
            simulation.arrive(Row(f"large {number}", LARGE, steps_left=1))
        while f"large {number}" not in simulation.ended_at and len(simulation.forwards) < 1000:
            simulation.step()
    assert simulation.used_s[LARGE] == pytest.approx(simulation.used_s[SMALL], abs=20.0)


def test_nothing_starves_among_many_groups() -> None:
    simulation = Simulation(Device())
    groups = [Group(f"m/{n}", "m", n, 32) for n in range(1, 7)]
    for group in groups:
        simulation.arrive(*[Row(f"{group.name} {i}", group, 5) for i in range(4)])
    simulation.run()
    ends = list(simulation.ended_at.values())
    assert len(ends) == 24
    # equal groups end in the same round of turns
    assert max(ends) - min(ends) < len(groups)


def test_loras_share_a_forward_where_their_products_cost_less_than_a_turn() -> None:
    simulation = Simulation(Device(lora_s=0.1))
    ink, oil = frozenset({"ink"}), frozenset({"oil"})
    simulation.arrive(Row("a", loras=ink), Row("b", loras=oil), Row("c"))
    assert simulation.step() == ["a", "b", "c"]


def test_loras_take_turns_where_their_products_cost_more() -> None:
    simulation = Simulation(Device(lora_s=2.0))
    ink, oil = frozenset({"ink"}), frozenset({"oil"})
    simulation.arrive(Row("a", loras=ink), Row("b", loras=oil), Row("c", loras=ink))
    simulation.run()
    assert set(map(tuple, simulation.forwards)) == {("a", "c"), ("b",)}
    assert simulation.forwards[:2] != [["a", "c"], ["a", "c"]]


def test_loras_of_one_group_have_the_share_of_one_group() -> None:
    simulation = Simulation(Device({SMALL: 4, LARGE: 1}, lora_s=3.0))
    sets = [frozenset({name}) for name in ("ink", "oil", "pixel")]
    simulation.arrive(*[Row(str(s), SMALL, 1000, loras=s) for s in sets])
    simulation.arrive(Row("large", LARGE, 1000))
    simulation.run(400)
    assert simulation.used_s[SMALL] == pytest.approx(simulation.used_s[LARGE], abs=10.0)
    by_set = Counter(names[0] for names in simulation.forwards if names != ["large"])
    assert max(by_set.values()) - min(by_set.values()) <= 1


def test_rows_that_are_taken_out_run_no_more() -> None:
    simulation = Simulation()
    rows = rows_of(SMALL, "abc")
    simulation.arrive(*rows)
    simulation.scheduler.remove([rows[1]])
    assert simulation.step() == ["a", "c"]
    simulation.scheduler.remove([rows[0], rows[2]])
    assert simulation.step() == []
    assert simulation.scheduler.room(prepare_s=0) == {}


def room(simulation: Simulation, prepare_s: float = 0.0) -> Mapping[str, int]:
    return simulation.scheduler.room(prepare_s)


def test_there_is_room_for_as_many_rows_as_pay_beside_those_in_hand() -> None:
    simulation = Simulation(Device({SMALL: 4}))
    simulation.arrive(Row("a"), Row("b", num_places=2))
    assert room(simulation) == {SMALL.name: 1}
    simulation.scheduler.expect(SMALL, "c", 1)
    assert room(simulation) == {SMALL.name: 0}


def test_one_job_more_is_taken_just_before_a_place_gets_free() -> None:
    simulation = Simulation(Device({SMALL: 1}))
    simulation.arrive(Row("a", steps_left=4))
    simulation.step()
    assert room(simulation, prepare_s=2.0) == {SMALL.name: 0}  # another worker may begin it
    simulation.step()
    assert room(simulation, prepare_s=2.0) == {SMALL.name: 1}
    simulation.scheduler.expect(SMALL, "b", 1)
    assert room(simulation, prepare_s=2.0) == {SMALL.name: 0}


def test_rows_of_a_job_that_wait_for_places_leave_no_room_ahead() -> None:
    simulation = Simulation(Device({SMALL: 1}))
    simulation.arrive(*rows_of(SMALL, "ab", steps=1))
    assert room(simulation, prepare_s=99.0) == {SMALL.name: 0}


def test_groups_in_hand_are_bounded_and_the_oldest_ends_for_another() -> None:
    simulation = Simulation(Device())
    groups = [Group(f"m/{n}", "m", n, 32) for n in range(1, MAX_GROUPS + 1)]
    for group in groups[:-1]:
        simulation.arrive(Row(group.name, group, 3))
    assert simulation.scheduler.num_new_groups == 1
    assert room(simulation)[groups[0].name] == 3
    simulation.arrive(Row(groups[-1].name, groups[-1], 9))
    assert simulation.scheduler.num_new_groups == 0
    assert room(simulation)[groups[0].name] == 0
    assert room(simulation)[groups[1].name] == 3
    while groups[0].name not in simulation.ended_at:
        simulation.step()
    assert simulation.scheduler.num_new_groups == 1


def remaining(simulation: Simulation, rows: Sequence[Row]) -> list[float]:
    by_row = simulation.scheduler.remaining_s(rows[0].group)
    return [by_row[row] for row in rows]


def test_the_time_that_remains_is_told_before_the_first_step() -> None:
    simulation = Simulation(Device({LARGE: 1}))
    rows = [Row("a", steps_left=4), Row("b", LARGE)]
    simulation.arrive(*rows)
    assert remaining(simulation, rows[:1]) == [4 * 2]  # half of the device is its


def test_the_time_that_remains_counts_the_turns_of_others() -> None:
    simulation = Simulation(Device({LARGE: 1}))
    rows = [Row("a", LARGE, steps_left=40), Row("b", LARGE, steps_left=10)]
    simulation.arrive(*rows, *rows_of(SMALL, "c", steps=1000))
    simulation.run(88)
    told = remaining(simulation, rows)
    now = simulation.now
    simulation.run(900)
    actual = [simulation.ended_at[name] - now for name in "ab"]
    assert told == pytest.approx(actual, rel=0.1)


def test_rows_that_wait_for_a_place_are_told_so() -> None:
    simulation = Simulation(Device({SMALL: 2}))
    rows = [Row("a", steps_left=5), Row("b", steps_left=9), Row("c", steps_left=3), Row("d")]
    simulation.arrive(*rows)
    assert remaining(simulation, rows) == [5.0, 9.0, 8.0, 12.0]


def test_pauses_between_steps_count_as_time_that_remains() -> None:
    simulation = Simulation()
    rows = rows_of(SMALL, "a", steps=200)
    simulation.arrive(*rows)
    for _ in range(100):
        simulation.step()
        simulation.now += 0.5  # an image is decoded
    assert remaining(simulation, rows) == pytest.approx([100 * 1.5], rel=0.05)


def test_pauses_that_come_in_waves_are_told_evenly() -> None:
    simulation = Simulation(Device({SMALL: 8}))
    told: dict[str, tuple[float, float]] = {}  # by row: what remains, and when that was said
    to_come, num_ended = list("abcdefgh"), 0
    for _ in range(400):
        new = [Row(name, steps_left=20) for name in to_come[:1]]
        simulation.arrive(*new)
        simulation.step()
        for row in new:
            told[row.name] = remaining(simulation, [row])[0], simulation.now
        ended = list(simulation.ended_at)[num_ended:]
        num_ended += len(ended)
        simulation.now += 2.0 * len(ended)  # each image is decoded, and its client asks again
        to_come = [*to_come[1:], *(f"{name}'" for name in ended)]
    later = [name for name in simulation.ended_at if len(name) > 3]
    actual = [simulation.ended_at[name] - told[name][1] for name in later]
    assert len(later) > 80
    assert [told[name][0] for name in later] == pytest.approx(actual, rel=0.15)


def test_pauses_of_a_busy_time_are_forgotten_with_it() -> None:
    simulation = Simulation()
    simulation.arrive(Row("a", steps_left=30))
    while "a" not in simulation.ended_at:
        simulation.step()
        simulation.now += 2.0
    simulation.now += 1000.0
    later = [Row("b", steps_left=20)]
    simulation.arrive(*later)
    simulation.step()
    assert remaining(simulation, later) == [19.0]


def test_pauses_are_remembered_while_a_group_waits_for_its_turn() -> None:
    simulation = Simulation(Device({LARGE: 1}))
    rows = rows_of(SMALL, "a", steps=400)
    simulation.arrive(*rows, Row("large", LARGE, 1000))
    for _ in range(330):
        names = simulation.step()
        simulation.now += 2.0 if names == ["a"] else 0.0
    [told], began = remaining(simulation, rows), simulation.now
    while "a" not in simulation.ended_at:
        names = simulation.step()
        simulation.now += 2.0 if names == ["a"] else 0.0
    assert told == pytest.approx(simulation.ended_at["a"] - began, rel=0.1)


def test_one_pause_at_the_beginning_is_not_taken_for_all() -> None:
    simulation = Simulation()
    rows = rows_of(SMALL, "a", steps=20)
    simulation.arrive(*rows)
    simulation.step()
    simulation.now += 3.0  # its preview is the first, and has kernels to load
    simulation.step()
    assert remaining(simulation, rows) == pytest.approx([18.0], rel=0.35)


class ByPlaces(Device):
    def step_s(self, group: Group, num_places: int, loras: frozenset[str]) -> float:  # noqa: ARG002
        return float(num_places)


def test_rows_that_are_being_prepared_count_for_the_time_that_remains() -> None:
    simulation = Simulation(ByPlaces())
    rows = [Row("a")]
    simulation.arrive(*rows)
    simulation.scheduler.expect(SMALL, "b", 2)
    assert remaining(simulation, rows) == [4 * 3]
    simulation.scheduler.expect(SMALL, "c", 9)
    assert remaining(simulation, rows) == [4 * 4]  # as many as pay


def test_rows_that_end_sooner_make_the_steps_of_those_that_stay_cheaper() -> None:
    simulation = Simulation(ByPlaces())
    rows = [Row("a", steps_left=2), Row("b", steps_left=5)]
    simulation.arrive(*rows)
    assert remaining(simulation, rows) == [2 * 2, 2 * 2 + 3 * 1]


def test_rows_of_two_places_never_fill_an_odd_one() -> None:
    simulation = Simulation(ByPlaces({SMALL: 3}))
    rows = [Row(name, num_places=2) for name in "ab"]
    simulation.arrive(*rows)
    told = remaining(simulation, rows)
    simulation.run()
    assert told == [simulation.ended_at[name] for name in "ab"] == [4 * 2, 8 * 2]


@pytest.mark.parametrize("lora_s", [0.02, 0.1, 0.3])
def test_rows_with_loras_of_their_own_are_told_the_turns_that_they_take(lora_s: float) -> None:
    simulation = Simulation(Device({SMALL: 8}, lora_s))
    rows = [Row(name, steps_left=20, loras=frozenset({name})) for name in "abcdefgh"]
    simulation.arrive(*rows)
    told = remaining(simulation, rows)
    simulation.run()
    last = max(simulation.ended_at.values())
    assert told == [pytest.approx(last, rel=0.15)] * 8


def test_the_first_of_a_crowd_is_told_that_others_come_as_they_did_before() -> None:
    simulation = Simulation(ByPlaces())
    simulation.arrive(*rows_of(SMALL, "abcd", steps=50))
    simulation.run()
    rows = [Row("first", steps_left=11)]
    simulation.arrive(*rows)
    simulation.step()
    assert remaining(simulation, rows) == [10 * 4]


def test_a_crowd_of_long_ago_is_forgotten() -> None:
    simulation = Simulation(ByPlaces())
    simulation.arrive(*rows_of(SMALL, "abcd", steps=50))
    simulation.run()
    simulation.now += 60
    rows = [Row("alone", steps_left=11)]
    simulation.arrive(*rows)
    simulation.step()
    assert remaining(simulation, rows) == [10 * 1]
