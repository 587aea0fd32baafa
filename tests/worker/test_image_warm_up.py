"""What the first use of a model measures, and how long it takes for that."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from tests.cards import card_of
from tests.worker.pipelines import TinyImagePipeline, TinyRow
from worker import image_warm_up
from worker.contract.jobs import Task
from worker.image_run import ImagePipeline
from worker.image_warm_up import StepMeasuring


class Slow(TinyImagePipeline):
    """A step takes so many seconds for each of its rows, on a clock of its own."""

    def __init__(self, row_s: float) -> None:
        super().__init__()
        self.row_s = row_s
        self.first_s = 0.0  # of the first step, beside
        self.launch_s = 0.0  # of each step, beside
        self.disturbed: set[int] = set()  # by others, with so many rows
        self.now_s = 0.0

    def step(self, rows: Sequence[TinyRow]) -> None:
        self.now_s += self.launch_s + self.row_s * len(rows)
        self.now_s += 0.0 if self.batch_sizes else self.first_s
        self.now_s += 1.0 if len(rows) in self.disturbed else 0.0
        super().step(rows)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, row_s: float) -> Slow:
    pipeline = Slow(row_s)
    clock = SimpleNamespace(perf_counter=lambda: pipeline.now_s, thread_time=lambda: pipeline.now_s)
    monkeypatch.setattr(image_warm_up, "time", clock)
    return pipeline


def measure_all(measuring: StepMeasuring, slow: Slow) -> list[int]:
    """Do every piece as soon as it is due, and say how many steps each took."""
    num_steps = []
    while not measuring.is_over:
        before = len(slow.batch_sizes)
        if measuring.is_due:
            measuring.advance(cast(ImagePipeline, slow))
            num_steps.append(len(slow.batch_sizes) - before)
        else:
            slow.now_s += 1.0
    return num_steps


@pytest.mark.parametrize(("row_s", "batch_sizes"), [(60.0, [1, 1]), (0.3, [1, 1, 2])])
def test_a_slow_device_measures_no_more_rows_once_the_time_is_over(
    slow: Slow, row_s: float, batch_sizes: Sequence[int]
) -> None:
    pipeline = cast(ImagePipeline, slow)
    measuring = image_warm_up.warm_up(pipeline, card_of("flux_shapes", Task.IMAGES))
    measure_all(measuring, slow)
    assert slow.batch_sizes == batch_sizes  # the first is the image that nobody sees
    assert measuring.costs.places_that_pay(112) == 1
    assert measuring.costs.step_s(112, 1, frozenset()) == row_s


@pytest.mark.parametrize("row_s", [0.03])
def test_a_first_step_that_loads_kernels_for_long_ends_no_measuring(slow: Slow) -> None:
    slow.first_s = 5.0
    pipeline = cast(ImagePipeline, slow)
    measuring = image_warm_up.warm_up(pipeline, card_of("flux_shapes", Task.IMAGES))
    assert slow.batch_sizes == [1]
    measure_all(measuring, slow)
    assert measuring.costs.step_s(112, 1, frozenset()) == pytest.approx(slow.row_s)
    assert measuring.costs.step_s(112, 4, frozenset()) == pytest.approx(4 * slow.row_s)


@pytest.mark.parametrize("row_s", [0.8])
def test_one_row_pays_and_takes_as_long_as_the_first_did_until_more_is_measured(
    slow: Slow, row_s: float
) -> None:
    measuring = image_warm_up.warm_up(
        cast(ImagePipeline, slow), card_of("flux_shapes", Task.IMAGES)
    )
    assert slow.batch_sizes == [1]
    assert measuring.costs.places_that_pay(112) == measuring.costs.places_that_pay(9000) == 1
    assert measuring.costs.step_s(112, 1, frozenset()) == row_s
    assert measuring.costs.step_s(11200, 1, frozenset()) == pytest.approx(100 * row_s)


@pytest.mark.parametrize("row_s", [0.07])
def test_what_is_measured_before_a_model_is_ready_is_known_then_and_takes_a_moment(
    slow: Slow, row_s: float
) -> None:
    measuring = image_warm_up.warm_up(
        cast(ImagePipeline, slow), card_of("flux_shapes", Task.IMAGES)
    )
    assert slow.batch_sizes == [1, 1, 1, 2, 2, 4]
    assert measuring.costs.step_s(112, 2, frozenset()) == pytest.approx(2 * row_s)


@pytest.mark.parametrize("row_s", [0.03])
def test_each_piece_is_one_forward_at_most(slow: Slow) -> None:
    pipeline = cast(ImagePipeline, slow)
    measuring = image_warm_up.warm_up(pipeline, card_of("flux_shapes", Task.IMAGES))
    assert max(measure_all(measuring, slow)) == 1
    assert {1, 2, 4} <= {*slow.batch_sizes}


@pytest.mark.parametrize("row_s", [0.01])
def test_what_neighbours_disturbed_is_measured_again_later(slow: Slow) -> None:
    pipeline = cast(ImagePipeline, slow)
    slow.launch_s = 0.1
    slow.disturbed = {4, 8}
    measuring = image_warm_up.warm_up(pipeline, card_of("flux_shapes", Task.IMAGES))
    assert measuring.costs.places_that_pay(112) == 2
    slow.disturbed = set()
    measure_all(measuring, slow)
    assert measuring.costs.places_that_pay(112) == 8
    assert measuring.costs.step_s(112, 8, frozenset()) == pytest.approx(0.18)
