"""The directory of images."""

import os
import time
from pathlib import Path

import pytest

from worker.contract.image_files import ImageFiles, start_name


def test_a_stored_image_reads_back(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path / "images")
    name = files.store(b"png", "job_1", attempt=2, index=0)
    assert name == "job_1-2-0.png"
    assert files.read(name) == b"png"


def test_storing_leaves_no_other_file(tmp_path: Path) -> None:
    ImageFiles(tmp_path).store(b"png", "job_1", attempt=1, index=0)
    assert [path.name for path in tmp_path.iterdir()] == ["job_1-1-0.png"]


def test_a_failed_store_leaves_nothing(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path)
    files.path("job_1-1-0.png").mkdir()  # a directory in the way: the rename fails
    with pytest.raises(OSError, match="job_1-1-0"):
        files.store(b"png", "job_1", attempt=1, index=0)
    assert [path.name for path in tmp_path.iterdir()] == ["job_1-1-0.png"]


def test_a_later_attempt_does_not_replace_an_earlier_image(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path)
    first = files.store(b"first", "job_1", attempt=1, index=0)
    files.store(b"second", "job_1", attempt=2, index=0)
    assert files.read(first) == b"first"


def test_a_missing_image_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ImageFiles(tmp_path).read("job_1-1-0.png")


@pytest.mark.parametrize(
    "name",
    ["", "..", "../job-1-0.png", "/etc/passwd", "job-1-0.png/..", "job-1-0.PNG", "job-1-0.png\n",
     "a/job-1-0.png", ".job-1-0.png", "job-1-0.png.part", "job--0.png", "j\0b-1-0.png"],
)  # fmt: skip
def test_only_a_images_name_is_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not of the form"):
        ImageFiles(tmp_path).path(name)


def test_a_start_image_reads_back_until_it_is_removed(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path / "images")
    files.store_start(b"jpeg", "job_1")
    assert files.read_start(start_name("job_1")) == b"jpeg"
    files.remove_start("job_1")
    files.remove_start("job_1")  # somebody else may have been faster
    with pytest.raises(FileNotFoundError):
        files.read_start(start_name("job_1"))


def test_a_start_image_is_no_finished_image(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path)
    files.store_start(b"jpeg", "job_1")
    with pytest.raises(ValueError, match="is not of the form"):
        files.read(start_name("job_1"))


def test_start_files_are_told_with_their_jobs_and_ages(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path)
    assert files.start_files() == []
    for job_id, age_s in (("job_1", 0), ("job_2", 100)):
        files.store_start(b"jpeg", job_id)
        then = time.time() - age_s
        os.utime(tmp_path / "start" / start_name(job_id), (then, then))
    ages = {file.job_id: file.age_s for file in files.start_files()}
    assert ages == {"job_1": pytest.approx(0, abs=5), "job_2": pytest.approx(100, abs=5)}


@pytest.mark.parametrize("name", ["", "../job.start", "a/job.start", ".start", "job-1-0.png"])
def test_only_a_start_images_name_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"is not of the form job\.start"):
        ImageFiles(tmp_path).read_start(name)
