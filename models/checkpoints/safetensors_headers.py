"""The header of a safetensors file: names, shapes and places of its tensors. Free of torch.

The format: safetensors/README.md (0.8), an eight-byte length, a JSON header, the tensors in one
piece. Knows nothing about what the tensors mean.
"""

import json
import math
import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from models.errors import PresetFileError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
LENGTH_BYTES = 8  # of the header, little-endian, before it
METADATA_KEY = "__metadata__"
ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "C64": 8,
}


class _Entry(BaseModel):
    """One tensor in the header; offsets in bytes after the header."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_HEADER = TypeAdapter(dict[str, _Entry])


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies in its file, and as what; `dtype` is one of `ITEM_BYTES`."""

    offset: int  # in bytes, from the start of the file
    dtype: str
    shape: tuple[int, ...]


def read_header(file: FileIO, path: Path) -> dict[str, StoredTensor]:
    """Read from the start of an opened file.

    Raises PresetFileError for what is not a safetensors file, or cut short.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    start = LENGTH_BYTES + length
    if size < LENGTH_BYTES or length > MAX_HEADER_BYTES or start > size:
        raise PresetFileError(f"{path} is not a safetensors file")
    try:
        header = json.loads(file.read(length))
        header.pop(METADATA_KEY, None)
        entries = _HEADER.validate_python(header)
        return {name: _locate(entry, start, size) for name, entry in entries.items()}
    except (AttributeError, RecursionError, TypeError, ValueError, ValidationError) as error:
        raise PresetFileError(f"{path} is not a safetensors file: {error}") from error


def _locate(entry: _Entry, start: int, size: int) -> StoredTensor:
    if entry.dtype not in ITEM_BYTES:
        raise ValueError(f"dtype {entry.dtype!r} is not one of {', '.join(ITEM_BYTES)}")
    begin, end = entry.data_offsets
    if begin < 0 or end - begin != math.prod(entry.shape) * ITEM_BYTES[entry.dtype]:
        raise ValueError(f"{end - begin} bytes for {list(entry.shape)} of {entry.dtype}")
    if start + end > size:
        raise ValueError(f"cut short: {start + end - size} bytes are missing")
    return StoredTensor(start + begin, entry.dtype, entry.shape)
