"""A bad setting stops the start and says what is allowed."""

import pytest
from pydantic import ValidationError

from service.settings import ServiceSettings
from worker.contract.jobs import Task


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_MAX_QUEUE_DEPTH", "9")
    monkeypatch.setenv("TRIPTYCH_TASKS", '["images", "classify"]')
    settings = ServiceSettings()
    assert settings.max_queue_depth == 9
    assert settings.tasks == {Task.IMAGES, Task.CLASSIFY}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("tasks", ["video"], "Input should be 'images', 'classify' or 'embeddings'"),
        ("max_queue_depth", 0, "greater than or equal to 1"),
        ("port", 70000, "less than or equal to 65535"),
        ("colour", "red", "not permitted"),
    ],
)
def test_a_bad_setting_is_refused(field: str, value: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServiceSettings.model_validate({field: value})
