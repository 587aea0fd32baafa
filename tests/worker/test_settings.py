"""The settings stop a start that could not work."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.contract.jobs import Task
from worker.main import served_models
from worker.settings import WorkerSettings


def settings(**fields: object) -> WorkerSettings:
    required = {"redis_url": "redis://x", "queue": "images", "data_dir": "data"}
    return WorkerSettings.model_validate(required | fields)


def test_the_environment_sets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_REDIS_URL", "redis://x")
    monkeypatch.setenv("TRIPTYCH_QUEUE", "classify")
    monkeypatch.setenv("TRIPTYCH_DATA_DIR", "data")
    monkeypatch.setenv("TRIPTYCH_MODELS", "a, b")
    read = WorkerSettings()  # type: ignore[call-arg]
    assert (read.queue, read.data_dir, read.models) == (Task.CLASSIFY, Path("data"), ("a", "b"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("queue", "video"), ("device", "gpu"), ("lease_s", 0), ("max_batch", 0), ("max_attempts", 0)],
)
def test_a_bad_value_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        settings(**{name: value})


def test_all_presets_of_the_task_are_served_by_default() -> None:
    assert served_models(settings(queue="embeddings")) == ("f_net_shapes",)


def test_a_preset_of_another_task_is_refused() -> None:
    with pytest.raises(ValueError, match="'vit_shapes' is not one of flux_shapes"):
        served_models(settings(models=("vit_shapes",)))
