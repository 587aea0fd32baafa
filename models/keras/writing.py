"""Write `model.weights.h5`, whole or in shards, so that Keras loads it.

The format: keras/src/saving/saving_lib.py (keras 3.15.1). Every file is written under another name
first. Knows nothing about our parameters.
"""

import math
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import h5py
import torch
from torch import Tensor

from models.checkpoints.preset_files import (
    KERAS_INDEX_FILE,
    KERAS_WEIGHTS_FILE,
    replacing,
    write_json,
)
from models.keras.files import BFLOAT16, DTYPE_ATTRIBUTE

GIB = 2**30  # KerasHub's GB
NAME_ATTRIBUTE = "name"  # of the layer: for the reader, Keras asks for none
VARIABLES = "vars"

_DTYPES = (torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.int32)


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer and its variables, which may be made only when they are written."""

    path: str  # "layers/dense"
    name: str  # "dense_9"
    variables: Iterable[Tensor]

    @property
    def group(self) -> str:
        return f"{self.path}/{VARIABLES}"


def shard_bytes(max_shard_size: float | None) -> float:
    """Turn GB into bytes; None is without a limit.

    Raises ValueError for what is not a positive number, TypeError for what is no number.
    """
    if max_shard_size is None:
        return math.inf
    if not max_shard_size > 0:
        raise ValueError(f"max_shard_size is {max_shard_size}; more than 0 GB, or None, is allowed")
    return max_shard_size * GIB


def write_whole(target: Path, layers: Iterable[StoredLayer]) -> None:
    """Write one file; it wins over shards that are there.

    Raises ValueError for a dtype that Keras has not.
    """
    with replacing(target) as written, h5py.File(written, "w") as file:
        file.create_group(VARIABLES)
        for layer in layers:
            group = _group(file, layer)
            for index, tensor in enumerate(layer.variables):
                _store(group, index, tensor)


def write_shards(directory: Path, layers: Iterable[StoredLayer], max_shard_bytes: float) -> None:
    """Write shards and their index, and take away a whole file, which would win over them.

    Raises ValueError for a variable larger than a shard and for a dtype that Keras has not; then
    what was there stays.
    """
    weight_map: dict[str, list[str]] = {}
    with ExitStack() as files:
        shards = _Shards(directory, max_shard_bytes, files)
        for layer in layers:
            for index, tensor in enumerate(layer.variables):
                _store(_group(shards.with_room(layer, tensor), layer), index, tensor)
                names = weight_map.setdefault(f"/{layer.group}", [])
                if shards.name not in names:
                    names.append(shards.name)
    index_file = {
        "metadata": {"total_size": float(shards.num_bytes)},
        "weight_map": {
            path: names[0] if len(names) == 1 else names for path, names in weight_map.items()
        },
    }
    write_json(directory, KERAS_INDEX_FILE, index_file)
    (directory / KERAS_WEIGHTS_FILE).unlink(missing_ok=True)


class _Shards:
    """Files one after the other, none of them larger than allowed."""

    def __init__(self, directory: Path, max_bytes: float, files: ExitStack) -> None:
        self._directory, self._max_bytes, self._files = directory, max_bytes, files
        self._count = 0
        self._free_bytes = 0.0
        self._file: h5py.File
        self.name = ""
        self.num_bytes = 0

    def with_room(self, layer: StoredLayer, tensor: Tensor) -> h5py.File:
        """Give the file that takes the tensor."""
        if tensor.nbytes > self._max_bytes:
            raise ValueError(
                f"a variable of {layer.path} has {tensor.nbytes / GIB:.3g} GB; "
                f"max_shard_size {self._max_bytes / GIB:.3g} GB must be no less"
            )
        if not self._count or tensor.nbytes > self._free_bytes:
            self.name = f"model_{self._count:05d}.weights.h5"
            written = self._files.enter_context(replacing(self._directory / self.name))
            self._file = self._files.enter_context(h5py.File(written, "w"))
            self._count += 1
            self._free_bytes = self._max_bytes
        self._free_bytes -= tensor.nbytes
        self.num_bytes += tensor.nbytes
        return self._file


def _group(file: h5py.File, layer: StoredLayer) -> h5py.Group:
    group = file.require_group(layer.group)
    group.attrs[NAME_ATTRIBUTE] = layer.name
    return group


def _store(group: h5py.Group, index: int, tensor: Tensor) -> None:
    if tensor.dtype not in _DTYPES:
        allowed = ", ".join(map(str, _DTYPES))
        raise ValueError(f"{group.name}/{index} is {tensor.dtype}; {allowed} are allowed")
    values = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        opaque = values.view(torch.int16).numpy().view("V2")
        group.create_dataset(str(index), data=opaque).attrs[DTYPE_ATTRIBUTE] = BFLOAT16
    else:
        group.create_dataset(str(index), data=values.numpy())
