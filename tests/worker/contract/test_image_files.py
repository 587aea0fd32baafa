"""The directory of images."""

import errno
import os
from pathlib import Path

import pytest

from worker.contract.image_files import ImageFiles, StoredFile, format_of, start_name
from worker.contract.jobs import OutputFormat


def test_a_stored_image_reads_back(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path / "images")
    name = files.store(b"png", "job_1", attempt=2, index=0, output_format="png")
    assert name == "job_1-2-0.png"
    assert files.read(name).content == b"png"


@pytest.mark.parametrize(
    ("output_format", "name"),
    [("png", "job_1-1-0.png"), ("jpeg", "job_1-1-0.jpg"), ("webp", "job_1-1-0.webp")],
)
def test_the_name_of_an_image_tells_its_format(
    tmp_path: Path, output_format: OutputFormat, name: str
) -> None:
    files = ImageFiles(tmp_path)
    assert files.store(b"image", "job_1", 1, 0, output_format) == name
    assert format_of(name) == output_format
    [found] = files.walk_images()
    assert (found.path.name, found.job_id, found.attempt) == (name, "job_1", 1)
    assert files.touch(name)


def test_storing_leaves_no_other_file(tmp_path: Path) -> None:
    ImageFiles(tmp_path).store(b"png", "job_1", attempt=1, index=0, output_format="png")
    assert [path.name for path in tmp_path.iterdir()] == ["job_1-1-0.png"]


def test_a_failed_store_leaves_nothing(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path)
    files.path("job_1-1-0.png").mkdir()  # a directory in the way: the rename fails
    with pytest.raises(OSError, match="job_1-1-0"):
        files.store(b"png", "job_1", attempt=1, index=0, output_format="png")
    assert [path.name for path in tmp_path.iterdir()] == ["job_1-1-0.png"]


def test_a_later_attempt_does_not_replace_an_earlier_image(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path)
    first = files.store(b"first", "job_1", attempt=1, index=0, output_format="png")
    files.store(b"second", "job_1", attempt=2, index=0, output_format="png")
    assert files.read(first).content == b"first"


def test_a_missing_image_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ImageFiles(tmp_path).read("job_1-1-0.png")


@pytest.mark.parametrize(
    "name",
    ["", "..", "../job-1-0.png", "/etc/passwd", "job-1-0.png/..", "job-1-0.PNG", "job-1-0.png\n",
     "a/job-1-0.png", ".job-1-0.png", "job-1-0.png.part", "job--0.png", "j\0b-1-0.png",
     "job-1-0.jpeg", "job-1-0.gif", "job-1-0.png.jpg", "job-1-0pjpg", "job-1-0"],
)  # fmt: skip
def test_only_a_images_name_is_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not job-attempt-index"):
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
    with pytest.raises(ValueError, match="is not job-attempt-index"):
        files.read(start_name("job_1"))


def test_images_are_found_with_their_jobs_attempts_sizes_and_times(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path)
    path = files.path(files.store(b"png", "job_1", attempt=2, index=3, output_format="png"))
    os.utime(path, (1000, 1000))
    assert list(files.walk_images()) == [StoredFile(path, "job_1", 2, True, 3, 1000.0)]


def test_start_images_are_found_apart(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path)
    files.store(b"png", "job_1", attempt=1, index=0, output_format="png")
    files.store_start(b"jpeg", "job_2")
    [file] = files.walk_start_images()
    assert (file.job_id, file.attempt, file.is_whole) == ("job_2", None, True)
    assert [file.job_id for file in files.walk_images()] == ["job_1"]


def test_a_file_that_is_still_written_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, found = ImageFiles(tmp_path), list[StoredFile]()

    def look(_descriptor: int) -> None:
        found.extend([*files.walk_images(), *files.walk_start_images()])

    monkeypatch.setattr(os, "fsync", look)
    files.store(b"png", "job_1", attempt=2, index=0, output_format="png")
    files.store_start(b"jpeg", "job_2")
    written = [(f.job_id, f.attempt) for f in found if not f.is_whole]
    assert written == [("job_1", 2), ("job_2", None)]


def test_where_nothing_was_stored_or_all_is_gone_nothing_is_found(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path / "images")
    assert [*files.walk_images(), *files.walk_start_images()] == []


def test_names_of_other_makings_are_passed_over(tmp_path: Path) -> None:
    for name in ("notes.txt", "job-1.png", "job_1-1-0.png.bak", "x.part", ".part"):
        (tmp_path / name).write_bytes(b"")
    assert list(ImageFiles(tmp_path).walk_images()) == []


def test_a_file_that_was_touched_since_it_was_found_is_not_removed(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path)
    name = files.store(b"png", "job_1", attempt=1, index=0, output_format="png")
    os.utime(files.path(name), (1000, 1000))
    [file] = files.walk_images()
    assert files.touch(name)
    assert not file.remove()
    assert files.read(name).content == b"png"


def test_a_file_is_removed_once(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path)
    name = files.store(b"png", "job_1", attempt=1, index=0, output_format="png")
    [file] = files.walk_images()
    assert [file.remove(), file.remove()] == [True, False]
    assert not files.touch(name)


@pytest.mark.parametrize("name", ["", "../job.start", "a/job.start", ".start", "job-1-0.png"])
def test_only_a_start_images_name_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"is not of the form job\.start"):
        ImageFiles(tmp_path).read_start(name)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_file_that_cannot_be_kept_from_ageing_counts_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    files = ImageFiles(tmp_path)
    name = files.store(b"png", "job_1", attempt=1, index=0, output_format="png")

    def refuse(_path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "utime", refuse)
    assert not files.touch(name)


def test_a_broken_disk_is_no_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "utime", refuse)
    with pytest.raises(OSError, match="Input/output"):
        ImageFiles(tmp_path).touch("job_1-1-0.png")
