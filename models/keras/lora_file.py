"""KerasHub's `.lora.h5`: `lora/vars/rank`, and A and B of each layer by the layer's position.

`lora/<position>/vars/lora_kernel_a` and `_b`, float32. KerasHub cannot save the adapters of an
embedding; they are stored alike under Keras' names for them, `lora_embeddings_a` and `_b`. Knows
nothing about which layer a position is. Source: keras_hub/src/models/backbone.py (keras-hub
0.32.0).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
import torch
from torch import Tensor

from models.errors import PresetFileError
from models.preset_files import replacing

ROOT = "lora"
RANK = f"{ROOT}/vars/rank"
KERNEL, EMBEDDINGS = "lora_kernel", "lora_embeddings"


@dataclass(frozen=True, slots=True)
class Pair:
    """One layer's adapter in Keras' layout, r the rank; `kind` is KERNEL or EMBEDDINGS."""

    kind: str
    a: Tensor  # the kernel's shape, its last axis r
    b: Tensor  # [r, last axis of the kernel]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """What a file holds, by position."""

    rank: int
    pairs: Mapping[int, Pair]


def write(file: Path, content: LoraFile) -> None:
    """Write a file, whole or not at all."""
    with replacing(file) as written, h5py.File(written, "w") as store:
        store[RANK] = content.rank
        for position, pair in content.pairs.items():
            for letter, tensor in (("a", pair.a), ("b", pair.b)):
                values = tensor.detach().float().cpu().contiguous().numpy()
                store[f"{ROOT}/{position}/vars/{pair.kind}_{letter}"] = values


def read(file: Path) -> LoraFile:
    """Read a file.

    Raises PresetFileError for a missing file, and for one of another form.
    """
    with _opened(file) as store:
        root = store.get(ROOT)
        if not isinstance(root, h5py.Group) or not isinstance(store.get(RANK), h5py.Dataset):
            raise PresetFileError(f"{file} is not a LoRA file of KerasHub: it has no {RANK}")
        positions = [name for name in root if name != "vars"]
        if wrong := [name for name in positions if not name.isdecimal()]:
            raise PresetFileError(f"{file}: {ROOT}/{wrong[0]} is not a layer's position")
        pairs = {int(name): _read_pair(root[name], file) for name in positions}
        return LoraFile(int(store[RANK][()]), MappingProxyType(dict(sorted(pairs.items()))))


@contextmanager
def _opened(file: Path) -> Iterator[h5py.File]:
    if not file.is_file():
        raise PresetFileError(f"{file} is missing")
    try:
        with h5py.File(file, "r") as store:
            yield store
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise PresetFileError(f"{file} cannot be read: {error}") from error


def _read_pair(group: h5py.Group, file: Path) -> Pair:
    stored = group.get("vars", {})
    for kind in (KERNEL, EMBEDDINGS):
        names = {f"{kind}_a", f"{kind}_b"}
        if set(stored) == names:
            a, b = (_read_tensor(stored[name], file) for name in sorted(names))
            return Pair(kind, a, b)
    raise PresetFileError(
        f"{file}: {group.name}/vars holds {', '.join(stored) or 'nothing'}; "
        f"{KERNEL}_a and {KERNEL}_b, or {EMBEDDINGS}_a and {EMBEDDINGS}_b are allowed"
    )


def _read_tensor(dataset: h5py.Dataset, file: Path) -> Tensor:
    if not np.issubdtype(dataset.dtype, np.floating):
        raise PresetFileError(f"{file}: {dataset.name} is {dataset.dtype}, not a floating dtype")
    return torch.from_numpy(dataset[()].astype(np.float32))
