"""How many rows pay, and what a step of them costs."""

from collections.abc import Callable

import pytest

from tests.worker.studio import learn
from worker.step_costs import StepCosts

NO_LORAS: frozenset[str] = frozenset()


def device(launch_s: float, token_s: float, row_tokens: int) -> Callable[[int], float]:
    """A device that is kept busy from `launch_s` on."""
    return lambda places: max(launch_s, places * row_tokens * token_s)


def costs_of(
    time_step: Callable[[int], float], max_tokens: int | None = None, row_tokens: int = 96
) -> StepCosts:
    costs = StepCosts(max_tokens)
    learn(costs, row_tokens, time_step)
    return costs


def test_one_row_pays_where_it_keeps_the_device_busy() -> None:
    costs = costs_of(device(launch_s=0.0, token_s=1e-4, row_tokens=96))
    assert costs.places_that_pay(96) == 1


def test_a_device_that_one_row_keeps_busy_is_measured_with_no_more_than_four() -> None:
    asked: list[int] = []

    def time_step(places: int) -> float:
        asked.append(places)
        return float(places)

    costs_of(time_step)
    assert asked == [1, 2, 4]


def test_a_single_measurement_that_others_disturbed_does_not_count() -> None:
    costs = costs_of({1: 1.0, 2: 9.0, 4: 2.4, 8: 4.8, 16: 9.6}.__getitem__)
    assert costs.places_that_pay(96) == 4


def test_rows_pay_while_each_doubling_makes_a_row_a_twentieth_cheaper() -> None:
    seconds = {1: 1.0, 2: 1.2, 4: 2.1, 8: 4.1, 16: 8.1}
    assert costs_of(seconds.__getitem__).places_that_pay(96) == 4


@pytest.mark.parametrize(("max_tokens", "places"), [(None, 32), (96 * 5, 4), (96, 1), (10, 1)])
def test_no_more_rows_than_fit_into_the_memory(max_tokens: int | None, places: int) -> None:
    costs = costs_of(lambda _: 1.0, max_tokens)
    assert costs.places_that_pay(96) == places


def test_another_size_has_as_many_tokens_at_once_as_pay_at_the_nearest_one() -> None:
    costs = StepCosts(None)
    learn(costs, 96, device(launch_s=8 * 96e-4, token_s=1e-4, row_tokens=96))
    learn(costs, 4096, device(launch_s=0.0, token_s=1e-4, row_tokens=4096))
    assert costs.places_that_pay(96) == 8
    assert costs.places_that_pay(48) == 16
    assert costs.places_that_pay(192) == 4
    assert costs.places_that_pay(3032) == 1


def test_while_a_size_is_measured_as_many_rows_pay_as_at_the_nearest_one() -> None:
    costs = costs_of(device(launch_s=8 * 96e-4, token_s=1e-4, row_tokens=96))
    measuring = costs.learn(48)
    assert (next(measuring), measuring.send(1.0), measuring.send(2.0)) == (1, 2, 4)
    assert costs.places_that_pay(48) == 16
    with pytest.raises(StopIteration):
        measuring.send(4.0)
    assert costs.places_that_pay(48) == 1


def test_what_pays_while_it_is_measured_is_known_at_once() -> None:
    measuring = (costs := StepCosts(None)).learn(96)
    assert (next(measuring), measuring.send(1.0), measuring.send(1.2)) == (1, 2, 4)
    assert costs.places_that_pay(96) == 2


def test_measured_twice_the_shorter_seconds_count() -> None:
    costs = costs_of({1: 1.0, 2: 9.0, 4: 9.0}.__getitem__)
    assert costs.places_that_pay(96) == 1
    learn(costs, 96, {1: 2.0, 2: 1.2, 4: 2.4, 8: 4.8}.__getitem__)
    assert costs.places_that_pay(96) == 2
    assert costs.table == {96: {1: 1.0, 2: 1.2, 4: 2.4, 8: 4.8}}


def test_the_seconds_between_two_measurements_lie_on_a_line() -> None:
    costs = costs_of({1: 1.0, 2: 1.5, 4: 2.0, 8: 4.0, 16: 8.0}.__getitem__)
    assert costs.step_s(96, 3, NO_LORAS) == pytest.approx(1.75)
    assert costs.step_s(96, 16, NO_LORAS) == pytest.approx(8.0)


def test_a_smaller_image_than_any_measured_costs_the_launch_all_the_same() -> None:
    costs = costs_of(float)
    assert costs.step_s(48, 1, NO_LORAS) == 1.0
    assert costs.step_s(192, 1, NO_LORAS) == pytest.approx(2.0)


def test_steps_that_run_refine_the_seconds_and_not_the_places() -> None:
    costs = costs_of({1: 1.0, 2: 1.2, 4: 2.4, 8: 4.8}.__getitem__)
    for _ in range(150):
        costs.note(96, 2, NO_LORAS, 6.0)
    assert costs.step_s(96, 2, NO_LORAS) == pytest.approx(6.0, rel=0.01)
    assert costs.step_s(96, 4, NO_LORAS) == pytest.approx(12.0, rel=0.01)
    assert costs.places_that_pay(96) == 2


def test_one_step_that_was_held_up_hardly_counts() -> None:
    costs = costs_of(float)
    costs.note(96, 1, NO_LORAS, 1000.0)
    assert costs.step_s(96, 1, NO_LORAS) < 1.1


def test_a_size_that_was_not_measured_costs_what_its_steps_do() -> None:
    costs = costs_of(float)
    for _ in range(150):
        costs.note(384, 1, NO_LORAS, 16.0)
    assert costs.step_s(384, 1, NO_LORAS) == pytest.approx(16.0, rel=0.01)
    assert costs.step_s(96, 1, NO_LORAS) == 1.0


def test_until_a_step_is_measured_the_shortest_that_ran_counts() -> None:
    """The very first one may have loaded kernels for half a minute."""
    costs = StepCosts(None)
    for seconds in (30.0, 0.5, 0.6):
        costs.note(96, 1, NO_LORAS, seconds)
    assert costs.step_s(96, 1, NO_LORAS) == pytest.approx(0.5, rel=0.02)
    costs.note(384, 1, NO_LORAS, 2.0)
    assert costs.step_s(384, 1, NO_LORAS) == 2.0
    learn(costs, 96, lambda places: 0.5 * places)
    assert costs.step_s(96, 4, NO_LORAS) == pytest.approx(2.0, rel=0.02)


def test_steps_that_ran_before_their_size_was_measured_say_nothing_of_it() -> None:
    costs = costs_of(float)
    learning = costs.learn(384)
    next(learning)
    for _ in range(50):  # against the seconds of the other size, of which there would be four
        costs.note(384, 1, NO_LORAS, 16.0)
    learning.send(16.0)
    assert costs.step_s(384, 1, NO_LORAS) == 16.0


def test_what_loras_add_is_learned_from_steps_with_them() -> None:
    costs = costs_of(float)
    ink, both = frozenset({"ink"}), frozenset({"ink", "oil"})
    assert costs.step_s(96, 1, ink) == 1.0
    costs.note(96, 1, ink, 1.5)
    assert costs.step_s(96, 1, ink) == pytest.approx(1.5)
    assert costs.step_s(96, 2, ink) == pytest.approx(3.0)
    assert costs.step_s(96, 1, both) == pytest.approx(1.5)
    assert costs.step_s(96, 1, NO_LORAS) == 1.0


def test_places_that_did_not_fit_after_all_are_halved() -> None:
    costs = costs_of(lambda _: 1.0)
    costs.halve(96, num_places=8)
    assert costs.places_that_pay(96) == 4
    costs.halve(96, num_places=1)
    assert costs.places_that_pay(96) == 1


@pytest.mark.parametrize("max_tokens", [None, 10])
def test_before_anything_is_measured_rows_run_one_at_a_time(max_tokens: int | None) -> None:
    costs = StepCosts(max_tokens)
    assert costs.places_that_pay(96) == 1
    assert costs.step_s(96, 1, NO_LORAS) == 0.0


def test_the_table_says_what_was_measured() -> None:
    costs = costs_of({1: 1.0, 2: 1.2, 4: 2.4, 8: 4.8}.__getitem__)
    assert costs.table == {96: {1: 1.0, 2: 1.2, 4: 2.4, 8: 4.8}}
