"""The settings stop a start that could not work."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.contract.jobs import Task
from worker.settings import WorkerSettings


def settings(**fields: object) -> WorkerSettings:
    required = {"redis_url": "redis://x", "queue": "images", "data_dir": "data"}
    return WorkerSettings.model_validate(required | fields)


def test_the_environment_sets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_REDIS_URL", "redis://x")
    monkeypatch.setenv("TRIPTYCH_QUEUE", "classify")
    monkeypatch.setenv("TRIPTYCH_DATA_DIR", "data")
    monkeypatch.setenv("TRIPTYCH_MODELS", "vit_base_patch16_224_imagenet, vit_shapes")
    read = WorkerSettings()  # type: ignore[call-arg]
    assert (read.queue, read.data_dir) == (Task.CLASSIFY, Path("data"))
    assert read.served_models == ("vit_base_patch16_224_imagenet", "vit_shapes")


@pytest.mark.parametrize(
    ("name", "value"),
    [("queue", "video"), ("device", "gpu"), ("lease_s", 0), ("max_batch", 0), ("max_attempts", 0)],
)
def test_a_bad_value_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        settings(**{name: value})


@pytest.mark.parametrize(
    ("queue", "name"),
    [("images", "flux_shapes"), ("classify", "vit_shapes"), ("embeddings", "f_net_shapes")],
)
def test_the_bundled_preset_of_the_task_is_served_by_default(queue: str, name: str) -> None:
    assert settings(queue=queue).served_models == (name,)


def test_one_list_for_all_workers_gives_each_the_presets_of_its_task() -> None:
    models = "f_net_base_en,vit_shapes,f_net_shapes"
    assert settings(queue="embeddings", models=models).served_models == (
        "f_net_base_en",
        "f_net_shapes",
    )
    assert settings(queue="classify", models=models).served_models == ("vit_shapes",)


def test_a_list_without_a_preset_for_the_task_is_refused() -> None:
    with pytest.raises(ValidationError, match="got 'vit_shapes', none for images; allowed: flux"):
        settings(models="vit_shapes")


@pytest.mark.parametrize("name", ["nothing", "vit_base_patch16_224_imagenet21k"])
def test_a_preset_that_cannot_be_served_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}' is not one of flux_shapes"):
        settings(models=f"flux_shapes,{name}")
