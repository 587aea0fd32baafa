"""Where the finished images lie: one directory of PNG files, written atomically.

The name holds job, attempt and index, so a late writer with an old attempt never replaces the
image of the attempt that counts. Free of torch and PIL; knows nothing of Redis and HTTP.
"""

import os
import re
import tempfile
from pathlib import Path

_FILE_NAME = re.compile(r"[A-Za-z0-9_]{1,64}-[0-9]{1,9}-[0-9]{1,9}\.png")


class ImageFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def store(self, png: bytes, job_id: str, attempt: int, index: int) -> str:
        """Write one image so that its name shows the whole file or nothing; returns the name.

        Raises OSError when the disk does not take it.
        """
        path = self.path(f"{job_id}-{attempt}-{index}.png")
        self._directory.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._directory, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(png)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide it from another user's API
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return path.name

    def path(self, file_name: str) -> Path:
        """Where an image lies; ValueError for anything that is not an image's name."""
        if _FILE_NAME.fullmatch(file_name) is None:
            raise ValueError(f"file name {file_name!r} is not of the form job-attempt-index.png")
        return self._directory / file_name

    def read(self, file_name: str) -> bytes:
        """Raises FileNotFoundError once the image is gone."""
        return self.path(file_name).read_bytes()
