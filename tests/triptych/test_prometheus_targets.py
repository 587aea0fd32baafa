"""The file from which Prometheus learns where the workers' metrics are."""

import json
from pathlib import Path

import pytest

from triptych.errors import DataDirError
from triptych.prometheus_targets import FILE_NAME, write_targets
from triptych.worker_slots import WorkerSlot
from worker.contract.jobs import Task

PORTS = {
    WorkerSlot(Task.IMAGES, 1, "cuda:1", 4, False, ("flux",)): 8004,
    WorkerSlot(Task.CLASSIFY, 0, "cpu", 1, False, ("vit",)): 8002,
}


def test_each_worker_is_a_target_with_its_task_name_and_device(tmp_path: Path) -> None:
    write_targets(tmp_path / "new", "0.0.0.0", PORTS)
    assert json.loads((tmp_path / "new" / FILE_NAME).read_text()) == [
        {
            "targets": ["127.0.0.1:8004"],
            "labels": {"task": "images", "worker": "images-1", "device": "cuda:1"},
        },
        {
            "targets": ["127.0.0.1:8002"],
            "labels": {"task": "classify", "worker": "classify-0", "device": "cpu"},
        },
    ]


def test_an_older_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("[]")
    write_targets(tmp_path, "::1", PORTS)
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]
    assert json.loads((tmp_path / FILE_NAME).read_text())[0]["targets"] == ["[::1]:8004"]


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirError, match=rf"cannot write in data directory {tmp_path}/file"):
        write_targets(tmp_path / "file", "127.0.0.1", PORTS)
