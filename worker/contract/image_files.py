"""Where the images lie: the finished ones, and those that waiting jobs start from.

All are written atomically. The name of a finished image holds job, attempt and index, so a late
writer with an old attempt never replaces the image of the attempt that counts; the name of a file
that is still being written begins with the one it will have. Start images, as clients sent them,
have a folder of their own: nobody fetches those. `service/file_janitor` looks through both for what
no job needs any more. Free of torch and PIL; knows nothing of Redis and HTTP.
"""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.contract.jobs import OutputFormat

_FORMATS: dict[str, OutputFormat] = {"png": "png", "jpg": "jpeg", "webp": "webp"}  # by a name's end
_ENDS = {output_format: end for end, output_format in _FORMATS.items()}
_JOB_ID = r"[A-Za-z0-9_]{1,64}"
_FILE_NAME = re.compile(rf"({_JOB_ID})-([0-9]{{1,9}})-[0-9]{{1,9}}\.(?:png|jpg|webp)")
_START_NAME = re.compile(rf"({_JOB_ID})\.start")
_START_FOLDER = "start"
# gone, another user's, on a file system that is read only
_NOT_TO_BE_TOUCHED = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS})
_PART = ".part"  # the end of a name whose file is not whole yet


def is_disk_full(error: OSError) -> bool:
    """Whether a file could not be written for want of space, which may come back."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def start_name(job_id: str) -> str:
    """Under which name a job's start image is stored."""
    return f"{job_id}.start"


def format_of(file_name: str) -> OutputFormat:
    """In which format an image is stored; `file_name` is its name."""
    return _FORMATS[file_name.rpartition(".")[2]]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One of the files, as it was found. `attempt` is None for a start image."""

    path: Path
    job_id: str
    attempt: int | None
    is_whole: bool  # its writer has closed it
    num_bytes: int
    modified_at: float  # Unix seconds

    def remove(self) -> bool:
        """Unless it was written or touched meanwhile; whether it is this call that did it."""
        try:
            if self.path.stat().st_mtime != self.modified_at:
                return False
            self.path.unlink()
        except FileNotFoundError:  # another process was faster
            return False
        return True


@dataclass(frozen=True, slots=True)
class FileContent:
    content: bytes
    modified_at: float  # Unix seconds


class ImageFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def store(
        self,
        content: bytes,
        job_id: str,
        attempt: int,
        index: int,
        output_format: OutputFormat,
    ) -> str:
        """Write one image so that its name shows the whole file or nothing; returns the name.

        Raises OSError when the disk does not take it.
        """
        path = self.path(f"{job_id}-{attempt}-{index}.{_ENDS[output_format]}")
        _write(content, path)
        return path.name

    def path(self, file_name: str) -> Path:
        """Where an image lies; ValueError for anything that is not an image's name."""
        if _FILE_NAME.fullmatch(file_name) is None:
            raise ValueError(f"file name {file_name!r} is not job-attempt-index.png, .jpg or .webp")
        return self._directory / file_name

    def read(self, file_name: str) -> FileContent:
        """Raises FileNotFoundError once the image is gone."""
        with self.path(file_name).open("rb") as file:
            return FileContent(file.read(), os.fstat(file.fileno()).st_mtime)

    def remove(self, file_name: str) -> None:
        self.path(file_name).unlink(missing_ok=True)

    def store_start(self, content: bytes, job_id: str) -> None:
        """Write the image that a job starts from likewise, under its `start_name`."""
        _write(content, self._start_path(start_name(job_id)))

    def read_start(self, file_name: str) -> bytes:
        """Raises FileNotFoundError once the image is gone."""
        return self._start_path(file_name).read_bytes()

    def remove_start(self, job_id: str) -> None:
        self._start_path(start_name(job_id)).unlink(missing_ok=True)

    def walk_images(self) -> Iterator[StoredFile]:
        """Find the images, as the caller asks for them; one that comes or goes now may be missed.

        Names that are not of our making are passed over.
        """
        return _walk(self._directory)

    def walk_start_images(self) -> Iterator[StoredFile]:
        """Find the start images likewise."""
        return _walk(self._directory / _START_FOLDER)

    def touch(self, file_name: str) -> bool:
        """Make an image new for who goes by the age; False where it is gone, or not ours to touch.

        Such a one would go by its age while somebody counts on it.
        """
        try:
            os.utime(self.path(file_name))
        except OSError as error:
            if error.errno in _NOT_TO_BE_TOUCHED:
                return False
            raise
        return True

    def _start_path(self, file_name: str) -> Path:
        if _START_NAME.fullmatch(file_name) is None:
            raise ValueError(f"file name {file_name!r} is not of the form job.start")
        return self._directory / _START_FOLDER / file_name


def _walk(directory: Path) -> Iterator[StoredFile]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                file = _stored_file(entry)
                if file is not None:
                    yield file
    except FileNotFoundError:  # nobody has stored one yet, or an operator has removed it
        return


def _stored_file(entry: os.DirEntry[str]) -> StoredFile | None:
    """None for a name that is not ours, and for a file that another process has just removed."""
    is_whole = not entry.name.endswith(_PART)
    name = entry.name if is_whole else entry.name.removesuffix(_PART).rpartition(".")[0]
    found = _FILE_NAME.fullmatch(name) or _START_NAME.fullmatch(name)
    if found is None:
        return None
    job_id, *rest = found.groups()
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return StoredFile(
        path=Path(entry.path),
        job_id=job_id,
        attempt=int(rest[0]) if rest else None,
        is_whole=is_whole,
        num_bytes=status.st_size,
        modified_at=status.st_mtime,
    )


def _write(content: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=_PART)
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
