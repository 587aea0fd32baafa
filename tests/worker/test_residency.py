"""Which pipelines are held."""

import itertools

import pytest

from models.errors import PresetFileError, UnknownPresetError
from worker.metrics import WorkerMetrics
from worker.residency import Residency


def test_a_pipeline_is_loaded_once() -> None:
    numbers = itertools.count()
    residency = Residency(["a", "b"], lambda _: next(numbers), WorkerMetrics())
    assert [residency.get(name) for name in ("a", "b", "a")] == [0, 1, 0]


def test_a_name_that_is_not_served_is_never_loaded() -> None:
    loaded: list[str] = []
    residency = Residency(["a"], loaded.append, WorkerMetrics())
    with pytest.raises(UnknownPresetError, match="'/etc' is not one of a"):
        residency.get("/etc")
    assert loaded == []


def test_a_load_that_fails_is_counted_and_tried_again_next_time() -> None:
    def load(name: str) -> str:
        raise PresetFileError(f"{name} is broken")

    metrics = WorkerMetrics()
    residency = Residency(["a"], load, metrics)
    for _ in range(2):
        with pytest.raises(PresetFileError):
            residency.get("a")
    labels = {"model": "a", "outcome": "failed"}
    assert metrics.registry.get_sample_value("triptych_model_loads_total", labels) == 2.0
