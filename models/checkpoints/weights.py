"""Tensors on disk, and which of them make one of ours.

Files are read, not mapped: what runs does not change when somebody changes the file. Knows nothing
about what the weights mean.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from models.errors import PresetFileError
from models.layers.float8_storage import Float8Matrix

MAX_NAMES_IN_MESSAGE = 5
# Numbers: 64 KB of float32. Larger pieces come from mmap; glibc, seeing those freed, would then put
# the weights themselves on its heap, with a peak higher by 0.3 times their size.
CONVERTED_AT_ONCE = 2**14


class Weights(Protocol):
    """Tensors on disk by name; nothing is read until asked for. Closed by `with`."""

    @property
    def where(self) -> Path:
        """Say, for messages, which file or directory this is."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Give the shape of every stored tensor."""

    def dtype(self, name: str) -> torch.dtype:
        """Say in which dtype `read` gives a tensor."""

    def read(self, name: str, out: Tensor | None = None) -> Tensor:
        """Read one tensor to the CPU, into memory of its own, or into `out` and `out`'s dtype.

        `out` is contiguous and of the tensor's shape. Raises PresetFileError where the file ends
        too early.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class Float8Weights(Protocol):
    """Weights that may be stored in float8."""

    def read_float8(self, name: str) -> Float8Matrix | None:
        """Read one tensor to the CPU as it is stored; None where that is not in float8."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one of our tensors is made of stored ones.

    `make` gets the stored tensors in the order of `names`; None puts them one below the other,
    along the first axis, which takes no memory beside the result. It runs on the meta device first,
    which tells the shape it makes. There it should only turn or flatten: to add, join or flip,
    torch 2.13 imports its compiler first, 1.4 s. A recipe that `computes`, and does not only
    rearrange, gets the stored dtype; the others get what the result shall have.
    """

    names: tuple[str, ...]
    make: Callable[..., Tensor] | None = None
    computes: bool = False

    def join(self, *parts: Tensor) -> Tensor:
        """Make our tensor of the stored ones."""
        if self.make is not None:
            return self.make(*parts)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def shape(self, stored: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Tell the shape of what stored tensors of these shapes make.

        Raises IndexError, RuntimeError or ValueError for parts that do not go together.
        """
        if self.make is not None or len(self.names) == 1:
            parts = (torch.empty(stored[name], device="meta") for name in self.names)
            return tuple(self.join(*parts).shape)
        shapes = [stored[name] for name in self.names]  # torch's own cat is not so light there
        if any(shape[1:] != shapes[0][1:] or not shape for shape in shapes):
            raise ValueError(f"{shapes} do not go one below the other")
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def identity_recipes(module: nn.Module) -> dict[str, Recipe]:
    """Expect every tensor under the module's own name."""
    return {name: Recipe((name,)) for name in module.state_dict()}


def ignore_none(_: str) -> bool:
    """Ignore no stored tensor: each must be asked for."""
    return False


def some(names: Sequence[str]) -> str:
    """List a few names for a message, and how many more there are."""
    more = len(names) - MAX_NAMES_IN_MESSAGE
    shown = ", ".join(names[:MAX_NAMES_IN_MESSAGE])
    return f"{shown} and {more} more" if more > 0 else shown


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
