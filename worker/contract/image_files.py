"""Where the images lie: the finished ones, as PNG files, and those that waiting jobs start from.

All are written atomically. The name of a finished image holds job, attempt and index, so a late
writer with an old attempt never replaces the image of the attempt that counts. Start images, as
clients sent them, have a folder of their own: nobody fetches those, and `service/start_images`
looks through it for what no job needs any more. Free of torch and PIL; knows nothing of Redis and
HTTP.
"""

import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_JOB_ID = r"[A-Za-z0-9_]{1,64}"
_FILE_NAME = re.compile(rf"{_JOB_ID}-[0-9]{{1,9}}-[0-9]{{1,9}}\.png")
_START_NAME = re.compile(rf"{_JOB_ID}\.start")
_START_FOLDER = "start"


def start_name(job_id: str) -> str:
    """Under which name a job's start image is stored."""
    return f"{job_id}.start"


@dataclass(frozen=True, slots=True)
class StartFile:
    """A file among the start images; one that was never finished has the id of no job."""

    path: Path
    age_s: float

    @property
    def job_id(self) -> str:
        return self.path.stem


class ImageFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def store(self, png: bytes, job_id: str, attempt: int, index: int) -> str:
        """Write one image so that its name shows the whole file or nothing; returns the name.

        Raises OSError when the disk does not take it.
        """
        path = self.path(f"{job_id}-{attempt}-{index}.png")
        _write(png, path)
        return path.name

    def path(self, file_name: str) -> Path:
        """Where an image lies; ValueError for anything that is not an image's name."""
        if _FILE_NAME.fullmatch(file_name) is None:
            raise ValueError(f"file name {file_name!r} is not of the form job-attempt-index.png")
        return self._directory / file_name

    def read(self, file_name: str) -> bytes:
        """Raises FileNotFoundError once the image is gone."""
        return self.path(file_name).read_bytes()

    def store_start(self, content: bytes, job_id: str) -> None:
        """Write the image that a job starts from likewise, under its `start_name`."""
        _write(content, self._start_path(start_name(job_id)))

    def read_start(self, file_name: str) -> bytes:
        """Raises FileNotFoundError once the image is gone."""
        return self._start_path(file_name).read_bytes()

    def remove_start(self, job_id: str) -> None:
        self._start_path(start_name(job_id)).unlink(missing_ok=True)

    def start_files(self) -> list[StartFile]:
        """All that lies among the start images now."""
        now, found = time.time(), []
        try:
            entries = list(os.scandir(self._directory / _START_FOLDER))
        except FileNotFoundError:  # nobody has stored one yet
            return []
        for entry in entries:
            try:
                found.append(StartFile(Path(entry.path), now - entry.stat().st_mtime))
            except FileNotFoundError:  # another process removed it meanwhile
                continue
        return found

    def _start_path(self, file_name: str) -> Path:
        if _START_NAME.fullmatch(file_name) is None:
            raise ValueError(f"file name {file_name!r} is not of the form job.start")
        return self._directory / _START_FOLDER / file_name


def _write(content: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide it from another user's process
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
