"""Open a file of a preset: a regular one, or an error that says what it is instead.

A named pipe would block for ever, a device never end, a link in an index lead anywhere. Knows
nothing about formats.
"""

import stat
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from models.errors import PresetFileError


def open_file(path: Path) -> FileIO:
    """Open a file for reading.

    Raises PresetFileError for one that is missing, not regular or not ours to read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PresetFileError(f"{path} is not a regular file")
        return FileIO(path)
    except FileNotFoundError:
        raise PresetFileError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise PresetFileError(f"{path} cannot be read: {error}") from error


def files_beside(index: Path, names: Iterable[str]) -> list[Path]:
    """Give the files that an index names, each once; they lie in its own directory.

    Raises PresetFileError for a name that leads elsewhere, and for none at all.
    """
    unique = dict.fromkeys(names)
    if not unique:
        raise PresetFileError(f"{index} names no file")
    for name in unique:
        if Path(name).name != name or name in ("", ".."):
            raise PresetFileError(f"{index} names {name!r:.100}, not a file beside it")
    return [index.parent / name for name in unique]
