"""Files that are no files, and names in an index that lead elsewhere."""

import os
from pathlib import Path

import pytest

from models import Backbone
from models.checkpoints.open_files import files_beside, open_file
from models.errors import PresetFileError


def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(PresetFileError, match=rf"{path} is not a regular file"):
            open_file(path)


def test_an_index_names_files_of_its_own_directory_once(tmp_path: Path) -> None:
    found = files_beside(tmp_path / "index.json", ["b", "a", "b"])

    assert found == [tmp_path / "b", tmp_path / "a"]


@pytest.mark.parametrize("name", ["../b", "/b", "a/b", "", ".", ".."])
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PresetFileError, match="not a file beside it"):
        files_beside(tmp_path / "index.json", ["b", name])


def test_an_index_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PresetFileError, match="names no file"):
        files_beside(tmp_path / "index.json", [])


def test_a_configuration_that_is_nested_without_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)

    with pytest.raises(PresetFileError, match=r"config\.json cannot be read: .*recursion"):
        Backbone.from_preset(tmp_path)
