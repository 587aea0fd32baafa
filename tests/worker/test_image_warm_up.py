"""What the first use of a model measures, and how long it takes for that."""

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest

from tests.cards import card_of
from tests.worker.pipelines import TinyImagePipeline, TinyRow
from worker import image_warm_up
from worker.contract.jobs import Task
from worker.image_run import ImagePipeline


class Slow(TinyImagePipeline):
    """A step takes so many seconds for each of its rows, on a clock of its own."""

    def __init__(self, row_s: float) -> None:
        super().__init__()
        self.row_s = row_s
        self.first_s = 0.0  # of the first step, beside
        self.now_s = 0.0

    def step(self, rows: Sequence[TinyRow]) -> None:
        self.now_s += self.row_s * len(rows) + (0.0 if self.batch_sizes else self.first_s)
        super().step(rows)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, row_s: float) -> Slow:
    pipeline = Slow(row_s)
    clock = SimpleNamespace(perf_counter=lambda: pipeline.now_s, thread_time=lambda: pipeline.now_s)
    monkeypatch.setattr(image_warm_up, "time", clock)
    return pipeline


@pytest.mark.parametrize(("row_s", "batch_sizes"), [(60.0, [1, 1]), (0.3, [1, 1, 2])])
def test_a_slow_device_measures_no_more_rows_once_the_time_is_over(
    slow: Slow, row_s: float, batch_sizes: Sequence[int]
) -> None:
    pipeline = cast(ImagePipeline, slow)
    measuring = image_warm_up.warm_up(pipeline, card_of("flux_shapes", Task.IMAGES))
    while measuring.advance(pipeline):
        pass
    assert slow.batch_sizes == batch_sizes  # the first is the image that nobody sees
    assert measuring.costs.places_that_pay(96) == 1
    assert measuring.costs.step_s(96, 1, frozenset()) == row_s


@pytest.mark.parametrize("row_s", [0.03])
def test_a_first_step_that_loads_kernels_for_long_ends_no_measuring(slow: Slow) -> None:
    slow.first_s = 5.0
    pipeline = cast(ImagePipeline, slow)
    measuring = image_warm_up.warm_up(pipeline, card_of("flux_shapes", Task.IMAGES))
    assert slow.batch_sizes == [1]
    while measuring.advance(pipeline):
        pass
    assert measuring.costs.step_s(96, 1, frozenset()) == pytest.approx(slow.row_s)
    assert measuring.costs.step_s(96, 4, frozenset()) == pytest.approx(4 * slow.row_s)


@pytest.mark.parametrize("row_s", [0.8])
def test_one_row_pays_and_takes_as_long_as_the_first_did_until_more_is_measured(
    slow: Slow, row_s: float
) -> None:
    measuring = image_warm_up.warm_up(
        cast(ImagePipeline, slow), card_of("flux_shapes", Task.IMAGES)
    )
    assert slow.batch_sizes == [1]
    assert measuring.costs.places_that_pay(96) == measuring.costs.places_that_pay(9000) == 1
    assert measuring.costs.step_s(96, 1, frozenset()) == row_s
    assert measuring.costs.step_s(9600, 1, frozenset()) == pytest.approx(100 * row_s)


@pytest.mark.parametrize("row_s", [0.07])
def test_what_is_measured_before_a_model_is_ready_is_known_then_and_takes_a_moment(
    slow: Slow, row_s: float
) -> None:
    measuring = image_warm_up.warm_up(
        cast(ImagePipeline, slow), card_of("flux_shapes", Task.IMAGES)
    )
    assert slow.batch_sizes == [1, 1, 1, 2, 2, 4]
    assert measuring.costs.step_s(96, 2, frozenset()) == pytest.approx(2 * row_s)


@pytest.mark.parametrize("row_s", [0.03])
def test_each_piece_is_one_forward_at_most(slow: Slow) -> None:
    pipeline = cast(ImagePipeline, slow)
    measuring = image_warm_up.warm_up(pipeline, card_of("flux_shapes", Task.IMAGES))
    num_steps = [len(slow.batch_sizes)]
    while measuring.advance(pipeline):
        num_steps.append(len(slow.batch_sizes))
    assert max(after - before for before, after in pairwise(num_steps)) == 1
    assert {1, 2, 4} <= {*slow.batch_sizes}
