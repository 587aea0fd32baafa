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


class Slow(TinyImagePipeline):
    """A step takes so many seconds for each of its rows, on a clock of its own."""

    def __init__(self, row_s: float) -> None:
        super().__init__()
        self.row_s = row_s
        self.now_s = 0.0

    def step(self, rows: Sequence[TinyRow]) -> None:
        self.now_s += self.row_s * len(rows)
        super().step(rows)


@pytest.mark.parametrize(("row_s", "batch_sizes"), [(60.0, [1, 1]), (0.3, [1, 1, 2])])
def test_a_slow_device_measures_no_more_rows_once_the_time_is_over(
    row_s: float, batch_sizes: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Slow(row_s)
    clock = SimpleNamespace(perf_counter=lambda: pipeline.now_s, thread_time=lambda: pipeline.now_s)
    monkeypatch.setattr(image_warm_up, "time", clock)
    card = card_of("flux_shapes", Task.IMAGES)
    costs = image_warm_up.warm_up(cast(ImagePipeline, pipeline), card)
    assert pipeline.batch_sizes == batch_sizes  # the first is the image that nobody sees
    assert costs.places_that_pay(96) == 1
    assert costs.step_s(96, 1, frozenset()) == row_s
