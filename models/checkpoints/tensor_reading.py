"""Read a tensor that lies in one piece in a file, from any thread.

Files are read, not mapped: what runs does not change when somebody changes the file. Knows nothing
about formats.
"""

import os
from collections.abc import Sequence
from io import FileIO

import torch
from torch import Tensor

from models.errors import PresetFileError

# Numbers: 64 KB of float32. Larger pieces come from mmap; glibc, seeing those freed, would then put
# the weights themselves on its heap, with a peak higher by 0.3 times their size.
CONVERTED_AT_ONCE = 2**14


def read_tensor(
    file: FileIO, offset: int, dtype: torch.dtype, shape: Sequence[int], out: Tensor | None = None
) -> Tensor:
    """Read a tensor that lies in one piece at `offset` bytes, as `Weights.read` does.

    Raises PresetFileError where the file ends too early or cannot be read.
    """
    read = torch.empty(tuple(shape), dtype=dtype, device="cpu") if out is None else out
    flat = read.view(-1)
    if read.dtype == dtype:
        _read_bytes(file, offset, flat)
        return read
    scratch = torch.empty(min(len(flat), CONVERTED_AT_ONCE), dtype=dtype, device="cpu")
    for start in range(0, len(flat), CONVERTED_AT_ONCE):
        part = flat[start : start + CONVERTED_AT_ONCE]
        converted = scratch[: len(part)]
        _read_bytes(file, offset + start * dtype.itemsize, converted)
        part.copy_(converted)
    return read


def _read_bytes(file: FileIO, offset: int, flat: Tensor) -> None:
    """Fill a flat tensor with the bytes from `offset` on; threads may share the file."""
    unread = flat.view(torch.uint8).numpy().data
    while unread:
        try:
            count = os.preadv(file.fileno(), [unread], offset)
        except OSError as error:
            raise PresetFileError(f"{file.name!s} cannot be read: {error}") from error
        if not count:
            raise PresetFileError(f"{file.name!s} is cut short: {len(unread)} bytes are missing")
        unread, offset = unread[count:], offset + count
