"""Devices and numbers of workers, by flag, environment and file."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from triptych.settings import ServeSettings
from worker.contract.jobs import Task


def test_by_default_every_gpu_is_used_and_the_number_of_workers_follows() -> None:
    settings = ServeSettings()
    assert settings.device is None
    assert settings.workers == {}


def test_auto_says_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_DEVICE", "auto")
    assert ServeSettings().device is None


def test_the_environment_takes_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_DEVICE", "cuda:3, cuda:0")
    monkeypatch.setenv("TRIPTYCH_WORKERS", "images=2, classify=1")
    settings = ServeSettings()
    assert settings.device == ("cuda:3", "cuda:0")
    assert settings.workers == {Task.IMAGES: 2, Task.CLASSIFY: 1}


@pytest.mark.parametrize("written", ['workers = "images=2"', "[workers]\nimages = 2"])
def test_the_file_takes_a_list_or_a_table(tmp_path: Path, written: str) -> None:
    file = tmp_path / "triptych.toml"
    file.write_text(f'device = "cuda:1"\n{written}\n', encoding="utf-8")
    settings = ServeSettings.model_validate({"config": file})
    assert (settings.device, settings.workers) == (("cuda:1",), {Task.IMAGES: 2})


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("device", "gpu", "'gpu' is not auto, cpu or cuda:N, nor a list such as cuda:0,cpu"),
        ("device", "auto,cpu", "'auto' is not auto, cpu or cuda:N, nor a list"),
        ("device", "cuda:0,cuda:0", "'cuda:0' stands there twice; once is allowed"),
        ("device", "", "'' is not auto, cpu or cuda:N"),
        ("workers", "paint=2", "not TASK=NUMBER, where TASK is one of images, classify, embedd"),
        ("workers", "images", "'images' is not TASK=NUMBER"),
        ("workers", "images=1,images=2", "'images' stands there twice; once is allowed"),
        ("workers", "images=0", "greater than or equal to 1"),
        ("workers", "images=1000", "less than or equal to 64"),
        ("workers", "images=many", "should be a valid integer"),
        ("workers", {"paint": 2}, "Input should be 'images', 'classify' or 'embeddings'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_allowed(
    name: str, value: object, complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ServeSettings.model_validate({name: value})
