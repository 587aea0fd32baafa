"""Is the time that is left, as told after the first step, what it takes? On a simulated device.

Clients ask for the next image when they have the last. While images are decoded, and others
prepared, beside the steps, these take longer: always the ones at the beginning of a crowd.
"""

import random
from dataclasses import dataclass

import pytest

from tests.worker.studio import learn
from worker.row_scheduler import Group, RowScheduler
from worker.step_costs import StepCosts

GROUP = Group("m/64", "m", 64, 32)
NO_LORAS: frozenset[str] = frozenset()
NUM_STEPS = 20
HONEST = 0.25  # of the time that it took: how far off what was told may be


class Device:
    """A step has launches and the work of its rows."""

    def __init__(self, launch_s: float, row_s: float, places: int) -> None:
        self.launch_s, self.row_s, self.places = launch_s, row_s, places
        self.costs = StepCosts(None)
        learn(self.costs, GROUP.row_tokens, self.quiet_step_s)

    def quiet_step_s(self, num_places: int) -> float:
        return self.launch_s + self.row_s * num_places

    def places_that_pay(self, group: Group) -> int:  # noqa: ARG002
        return self.places

    def step_s(self, group: Group, num_places: int, loras: frozenset[str]) -> float:
        return self.costs.step_s(group.row_tokens, num_places, loras)


@dataclass(eq=False, slots=True)
class Row:
    name: str
    ready_at: float
    group: Group = GROUP
    steps_left: int = NUM_STEPS
    num_places: int = 1
    loras: frozenset[str] = NO_LORAS
    stepped_at: float = 0.0  # first
    told_s: float = 0.0


class ClosedLoop:
    """So many clients, each of whom waits between two images for what is done beside the steps."""

    def __init__(self, device: Device, num_clients: int, between_s: float) -> None:
        self.device, self.between_s = device, between_s
        self.scheduler: RowScheduler[Row] = RowScheduler(device)
        self.chance = random.Random(1)
        self.now = 0.0
        self.coming: list[Row] = []
        self.ended: list[tuple[Row, float]] = []  # when
        for number in range(num_clients):
            self._ask(f"{number}", between_s * number / num_clients)

    def run(self, num_images: int) -> None:
        while len(self.ended) < num_images:
            for row in [row for row in self.coming if row.ready_at <= self.now]:
                self.coming.remove(row)
                self.scheduler.add(GROUP, row.name, [row])
            if rows := self.scheduler.next():
                self._step(rows)
            else:
                self.now = min(row.ready_at for row in self.coming)

    def _ask(self, name: str, ready_at: float) -> None:
        self.scheduler.expect(GROUP, name, 1)
        self.coming.append(Row(name, ready_at))

    def _step(self, rows: list[Row]) -> None:
        beside = 1.5 if self.coming else 1.0
        seconds = beside * self.chance.uniform(0.9, 1.1) * self.device.quiet_step_s(len(rows))
        self.now += seconds
        for row in rows:
            row.steps_left -= 1
        self.scheduler.note_step(rows, seconds, self.now)
        self.device.costs.note(GROUP.row_tokens, len(rows), NO_LORAS, seconds)
        remaining_s = self.scheduler.remaining_s(GROUP)
        for row in rows:
            if row.steps_left == NUM_STEPS - 1:
                row.stepped_at, row.told_s = self.now, remaining_s[row]
            if not row.steps_left:
                self.ended.append((row, self.now))
                self._ask(row.name, self.now + self.between_s * self.chance.uniform(0.5, 1.5))


@pytest.mark.parametrize("num_clients", [1, 2, 8, 16])
@pytest.mark.parametrize(
    ("launch_s", "row_s", "between_s"),
    [(0.02, 0.02, 0.06), (0.007, 0.004, 0.06), (0.0, 0.02, 0.06)],
)
@pytest.mark.parametrize("places", [4, 8])
def test_what_is_told_after_the_first_step_is_within_a_quarter(
    num_clients: int, launch_s: float, row_s: float, between_s: float, places: int
) -> None:
    loop = ClosedLoop(Device(launch_s, row_s, places), num_clients, between_s)
    loop.run(num_images=150)
    late = loop.ended[50:]
    took_s = [ended_at - row.stepped_at for row, ended_at in late]
    honest = [
        abs(row.told_s - took) <= HONEST * took for (row, _), took in zip(late, took_s, strict=True)
    ]
    assert sum(honest) >= 0.95 * len(honest)
