"""How a worker's start fails."""

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from models.errors import PresetFileError
from worker.contract.jobs import Task
from worker.contract.workers import read_all
from worker.loading import Loaded, Report
from worker.main import main, run
from worker.model_specs import ModelSpec
from worker.residency import Load
from worker.settings import WorkerSettings


@pytest.fixture
def no_model() -> Iterator[Load[object]]:
    """A loader that finds no file; the test's own signal handler comes back afterwards."""
    handler = signal.getsignal(signal.SIGTERM)

    def load(spec: ModelSpec, report: Report) -> Loaded[object]:
        report("loading")
        raise PresetFileError(f"{spec.name}/config.json is missing")

    yield load
    signal.signal(signal.SIGTERM, handler)


def test_a_preset_that_does_not_load_is_one_clear_line(
    redis: Redis,
    redis_url: str,
    tmp_path: Path,
    no_model: Load[object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = WorkerSettings(
        redis_url=redis_url, queue=Task.CLASSIFY, data_dir=tmp_path, load_retry_s=0
    )
    with caplog.at_level(logging.INFO):
        assert run(settings, no_model) == 1
    [record] = caplog.records
    assert record.exc_info is None
    assert record.getMessage() == (
        "event=model_unusable model=vit_shapes reason=vit_shapes/config.json is missing"
    )
    assert read_all(redis) == []


def test_a_redis_that_turns_it_away_is_one_clear_line(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{redis_url}?username=nobody&password=wrong"
    settings = WorkerSettings(redis_url=url, queue=Task.CLASSIFY, data_dir=tmp_path, device="cpu")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        main(settings)
    signal.signal(signal.SIGTERM, handler)
    assert end.value.code == 1
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is None
    assert record.getMessage().startswith("event=redis_unavailable reason=")
