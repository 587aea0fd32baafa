"""Which models are held."""

import itertools

import pytest

from models.errors import PresetFileError
from tests.worker.pipelines import loaded
from worker.contract.jobs import Task
from worker.failures import NotServedError
from worker.loading import Loaded, Report
from worker.metrics import WorkerMetrics
from worker.model_specs import ModelSpec
from worker.residency import Residency

A, B = (ModelSpec(name=name, handle="/x", task=Task.CLASSIFY) for name in ("a", "b"))


def ignore(progress: str) -> None:
    pass


def test_a_model_is_held_as_it_was_loaded() -> None:
    numbers = itertools.count()
    load = lambda spec, _: loaded(next(numbers), spec.name, spec.task)  # noqa: E731
    residency: Residency[int] = Residency(load, WorkerMetrics())
    took_s = [residency.load(spec, ignore) for spec in (A, B)]
    assert [residency.get(name) for name in ("a", "b", "a")] == [0, 1, 0]
    assert [residency.card(name).name for name in ("a", "b")] == ["a", "b"]
    assert min(took_s) >= 0


def test_a_name_that_is_not_held_is_refused() -> None:
    residency: Residency[int] = Residency(lambda *_: loaded(1, "a", Task.CLASSIFY), WorkerMetrics())
    residency.load(A, ignore)
    with pytest.raises(NotServedError, match="'/etc' is not one of a"):
        residency.get("/etc")
    residency.unload("a")
    assert residency.names == ()


def test_a_load_that_fails_is_counted() -> None:
    def load(spec: ModelSpec, report: Report) -> Loaded[int]:
        report("loading")
        raise PresetFileError(f"{spec.name} is broken")

    metrics = WorkerMetrics()
    residency = Residency(load, metrics)
    with pytest.raises(PresetFileError):
        residency.load(A, ignore)
    labels = {"model": "a", "outcome": "failed"}
    assert metrics.registry.get_sample_value("triptych_model_loads_total", labels) == 1.0
    assert residency.names == ()
