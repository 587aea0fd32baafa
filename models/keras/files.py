"""Keras' `model.weights.h5`, whole or in shards, as `Weights`.

The format: keras/src/saving/saving_lib.py (keras 3.15.1). Each variable lies in one piece, so it
is read past the HDF5 library, which would be slower. Refuses links that lead out of the preset.
Knows nothing about layers.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from models.checkpoints.open_files import files_beside, open_file
from models.checkpoints.preset_files import KERAS_INDEX_FILE, KERAS_WEIGHTS_FILE, read_model
from models.checkpoints.weights import read_tensor
from models.errors import PresetFileError

BFLOAT16 = "bfloat16"  # numpy has none: Keras stores two opaque bytes and says so in an attribute
DTYPE_ATTRIBUTE = "dtype"

_DTYPES = {"<f2": torch.float16, "<f4": torch.float32, "<f8": torch.float64}


class _Index(BaseModel):
    """`model.weights.json`: which files hold the variables of each layer."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    weight_map: Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Stored:
    path: Path
    file: FileIO
    dataset: h5py.Dataset


class KerasFiles:
    """The variables of one set of weights by dataset, `layers/…/vars/0`."""

    def __init__(self, where: Path, files: Mapping[Path, None]) -> None:
        """Open `files` and list what they hold.

        Raises PresetFileError for a missing or malformed file, or a variable that lies in two.
        """
        self.where = where
        self._stored: dict[str, _Stored] = {}
        with ExitStack() as opened:
            for path in files:
                for stored in _open(path, opened):
                    name = stored.dataset.name.removeprefix("/")
                    if name in self._stored:
                        raise PresetFileError(f"{path} holds {name} once more")
                    self._stored[name] = stored
            self._opened = opened.pop_all()

    @classmethod
    def in_directory(cls, directory: Path) -> Self:
        """Open `model.weights.h5`, which comes first, or the shards of `model.weights.json`.

        Raises PresetFileError for a missing or malformed file and for a shard elsewhere.
        """
        whole = directory / KERAS_WEIGHTS_FILE
        if whole.is_file() or not (directory / KERAS_INDEX_FILE).is_file():
            return cls(whole, {whole: None})
        index = read_model(directory, KERAS_INDEX_FILE, _Index)
        names = (
            name
            for value in index.weight_map.values()
            for name in ((value,) if isinstance(value, str) else value)
        )
        return cls(directory, dict.fromkeys(files_beside(directory / KERAS_INDEX_FILE, names)))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(stored.dataset.shape) for name, stored in self._stored.items()}

    def dtype(self, name: str) -> torch.dtype:
        return _dtype(self._stored[name])

    def read(self, name: str, out: Tensor | None = None) -> Tensor:
        stored = self._stored[name]
        dtype = _dtype(stored)
        offset = stored.dataset.id.get_offset()
        if offset is not None:
            return read_tensor(stored.file, offset, dtype, stored.dataset.shape, out)
        with _reading(stored.path):  # compressed or in chunks: Keras writes neither
            values = np.empty(stored.dataset.shape, stored.dataset.dtype)
            if values.size:
                stored.dataset.read_direct(values)
            read = torch.from_numpy(values.view(np.uint8)).view(dtype).reshape(values.shape)
        return read if out is None else out.copy_(read)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise PresetFileError(f"{path} cannot be read: {error}") from error


def _open(path: Path, opened: ExitStack) -> list[_Stored]:
    found: list[h5py.Dataset] = []

    def note(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(item)

    with _reading(path):
        file = opened.enter_context(open_file(path))
        opened.enter_context(h5py.File(path, "r")).visititems(note)
    for dataset in found:
        require_own(dataset, path)
    return [_Stored(path, file, dataset) for dataset in found]


def require_own(dataset: h5py.Dataset | h5py.Group, path: Path) -> None:
    """Refuse what would read other files of this machine, or is no array at all."""
    is_array = isinstance(dataset, h5py.Dataset) and dataset.shape is not None
    is_here = dataset.file.filename == str(path)
    if not is_array or not is_here or dataset.external or dataset.is_virtual:
        raise PresetFileError(f"{path}: {dataset.name} is not an array in this file")


def _dtype(stored: _Stored) -> torch.dtype:
    dtype = stored.dataset.dtype
    said = stored.dataset.attrs.get(DTYPE_ATTRIBUTE)
    is_bfloat16 = isinstance(said, str | bytes) and said in (BFLOAT16, BFLOAT16.encode())
    if is_bfloat16 and dtype.itemsize == torch.bfloat16.itemsize:
        return torch.bfloat16
    if dtype.str not in _DTYPES:
        allowed = ", ".join((*_DTYPES, BFLOAT16))
        raise PresetFileError(
            f"{stored.path}: {stored.dataset.name} is of dtype {dtype.str}, not one of {allowed}"
        )
    return _DTYPES[dtype.str]
