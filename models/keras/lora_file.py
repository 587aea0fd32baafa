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

from models.checkpoints.open_files import open_file
from models.checkpoints.preset_files import replacing
from models.errors import PresetFileError
from models.keras.files import require_own

ROOT = "lora"
RANK = f"{ROOT}/vars/rank"
KERNEL, EMBEDDINGS = "lora_kernel", "lora_embeddings"
MAX_TENSOR_BYTES = 2**30  # 100 times what rank 64 needs for the widest layer of FLUX.1


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
    file.parent.mkdir(parents=True, exist_ok=True)
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
        root, rank = store.get(ROOT), store.get(RANK)
        if not isinstance(root, h5py.Group) or not isinstance(rank, h5py.Dataset):
            raise PresetFileError(f"{file} is not a LoRA file of KerasHub: it has no {RANK}")
        if rank.shape != () or not np.issubdtype(rank.dtype, np.integer):
            raise PresetFileError(f"{file}: {RANK} is not one integer")
        positions = [name for name in root if name != "vars"]
        if wrong := [name for name in positions if not name.isdecimal()]:
            raise PresetFileError(f"{file}: {ROOT}/{wrong[0]} is not a layer's position")
        pairs = {int(name): _read_pair(root[name], file) for name in positions}
        return LoraFile(int(rank[()]), MappingProxyType(dict(sorted(pairs.items()))))


@contextmanager
def _opened(file: Path) -> Iterator[h5py.File]:
    try:
        with open_file(file), h5py.File(file, "r") as store:
            yield store
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise PresetFileError(f"{file} cannot be read: {error}") from error


def _read_pair(group: h5py.Group, file: Path) -> Pair:
    stored = group.get("vars", {}) if isinstance(group, h5py.Group) else {}
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
    require_own(dataset, file)
    if dataset.nbytes > MAX_TENSOR_BYTES:
        raise PresetFileError(
            f"{file}: {dataset.name} is {list(dataset.shape)}; "
            f"at most {MAX_TENSOR_BYTES} bytes are allowed"
        )
    if not np.issubdtype(dataset.dtype, np.floating):
        raise PresetFileError(f"{file}: {dataset.name} is {dataset.dtype}, not a floating dtype")
    return torch.from_numpy(dataset[()].astype(np.float32))
