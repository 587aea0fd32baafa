"""The settings stop a start that could not work."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from models.errors import PresetError
from worker.contract.jobs import Task
from worker.device_memory import Memory, memory_of
from worker.settings import WorkerSettings


def settings(**fields: object) -> WorkerSettings:
    required = {"redis_url": "redis://x", "queue": "images", "data_dir": "data"}
    return WorkerSettings.model_validate(required | fields)


def names(read: WorkerSettings) -> list[str]:
    return [spec.name for spec in read.specs_of_queue()]


def test_budgets_are_told_in_bytes_or_in_words() -> None:
    told = settings(memory_budget="20GB", memory_reserve="500MiB", host_memory_budget=7)
    assert (told.memory_budget, told.memory_reserve) == (20 * 10**9, 500 * 2**20)
    assert told.host_memory_budget == 7
    assert memory_of("cpu", told) == Memory(20 * 10**9, 0)
    assert memory_of("cpu", settings()) == Memory(None, 0)
    with pytest.raises(ValidationError, match="memory_budget"):
        settings(memory_budget="0")


def test_the_environment_sets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_REDIS_URL", "redis://x")
    monkeypatch.setenv("TRIPTYCH_QUEUE", "classify")
    monkeypatch.setenv("TRIPTYCH_DATA_DIR", "data")
    monkeypatch.setenv("TRIPTYCH_MODELS", "vit_base_patch16_224_imagenet, vit_shapes")
    monkeypatch.setenv("TRIPTYCH_MODEL_ALIASES", '{"gpt-image-1": "vit_shapes"}')
    read = WorkerSettings()  # type: ignore[call-arg]
    assert (read.queue, read.data_dir) == (Task.CLASSIFY, Path("data"))
    assert names(read) == ["vit_base_patch16_224_imagenet", "vit_shapes"]
    assert [spec.aliases for spec in read.specs] == [(), ("gpt-image-1",)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue", "video"),
        ("device", "gpu"),
        ("lease_s", 0),
        ("max_batch", 0),
        ("max_attempts", 0),
        ("text_cache_bytes", -1),
        ("result_cache_bytes", -1),
        ("models", ""),
        ("model_aliases", {"x": "flux_dev"}),
        ("model_aliases", {"x": "nothing"}),
        ("model_aliases", {"flux_dev": "flux_shapes"}),
    ],
)
def test_a_bad_value_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        settings(**{name: value})


@pytest.mark.parametrize(
    ("queue", "name"),
    [("images", "flux_shapes"), ("classify", "vit_shapes"), ("embeddings", "f_net_shapes")],
)
def test_the_bundled_preset_of_the_task_is_served_by_default(queue: str, name: str) -> None:
    assert names(settings(queue=queue)) == [name]


def test_one_list_for_all_workers_gives_each_the_models_of_its_task() -> None:
    models = "f_net_base_en,vit_shapes,f_net_shapes"
    assert names(settings(queue="embeddings", models=models)) == ["f_net_base_en", "f_net_shapes"]
    assert names(settings(queue="classify", models=models)) == ["vit_shapes"]


def test_a_list_without_a_model_for_the_task_is_refused() -> None:
    with pytest.raises(PresetError, match=r"got vit_shapes \(classify\); none is for images"):
        settings(models="vit_shapes").specs_of_queue()


def test_a_file_says_more_of_each_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "triptych.toml"
    file.write_text(
        """
        port = 9000
        lease_s = 3.5
        device = "cpu"

        [[models]]
        name = "oil"
        handle = "hf://someone/oil"
        task = "images"
        dtype = "bfloat16"
        aliases = ["gpt-image-1"]
        default_size = "768x512"

        [[models]]
        name = "flux_schnell"
        """,
        encoding="utf-8",
    )
    read = settings(config=file)
    oil, schnell = read.specs_of_queue()
    assert (read.lease_s, read.device) == (3.5, "cpu")
    assert (oil.source, oil.dtype, oil.aliases, oil.default_size) == (
        "hf://someone/oil",
        "bfloat16",
        ("gpt-image-1",),
        "768x512",
    )
    assert (schnell.source, schnell.task) == ("flux_schnell", Task.IMAGES)
    monkeypatch.setenv("TRIPTYCH_LEASE_S", "4")
    monkeypatch.setenv("TRIPTYCH_CONFIG", str(file))
    assert settings().lease_s == 4
    assert settings(lease_s=5).lease_s == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("models = [", "Invalid"),
        ("[[model]]\nname = 'a'", "model is no setting; allowed: .*models"),
        ("queue = 'images'", "queue is no setting"),
        ("worker_name = 'a'", "worker_name is no setting"),  # each has one of its own
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "triptych.toml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ValidationError, match=rf"config: {file}: .*{says}"):
        settings(config=file)
