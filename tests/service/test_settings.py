"""A bad setting stops the start and says what is allowed."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import ServiceSettings
from worker.contract.jobs import Task
from worker.settings import WorkerSettings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_MAX_QUEUE_DEPTH", "9")
    monkeypatch.setenv("TRIPTYCH_TASKS", '["images", "classify"]')
    settings = ServiceSettings()
    assert settings.max_queue_depth == 9
    assert settings.tasks == {Task.IMAGES, Task.CLASSIFY}


def test_the_api_and_its_workers_read_the_same_size_of_the_result_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIPTYCH_RESULT_CACHE_BYTES", "1GiB")
    monkeypatch.setenv("TRIPTYCH_SHARES_RUNS", "false")
    worker = WorkerSettings(redis_url="redis://x", queue=Task.IMAGES, data_dir=Path("data"))
    settings = ServiceSettings()
    assert settings.result_cache_bytes == worker.result_cache_bytes == 2**30
    assert not settings.shares_runs


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("tasks", ["video"], "Input should be 'images', 'classify' or 'embeddings'"),
        ("max_queue_depth", 0, "greater than or equal to 1"),
        ("result_cache_bytes", -1, "could not parse value and unit from byte string"),
        ("port", 70000, "less than or equal to 65535"),
        ("colour", "red", "not permitted"),
    ],
)
def test_a_bad_setting_is_refused(field: str, value: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServiceSettings.model_validate({field: value})
