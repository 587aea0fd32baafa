"""Safetensors files as `Weights`, and writing them.

transformers stores a model with a head with its backbone under a prefix, a bare one without
(modeling_utils.py, 5.23.0). Knows nothing about what the tensors mean.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoints import preset_files
from models.checkpoints.open_files import files_beside, open_file
from models.checkpoints.safetensors_headers import ITEM_BYTES, StoredTensor, read_header
from models.checkpoints.weights import read_tensor
from models.errors import PickleError, PresetFileError

READABLE_BY_ALL = 0o644

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
assert _DTYPES.keys() == ITEM_BYTES.keys(), "a dtype without its size: this is a bug"


PICKLED_WEIGHTS_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")  # of transformers


@dataclass(frozen=True, slots=True)
class _Place:
    file: FileIO
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, stored: StoredTensor, file: FileIO) -> Self:
        return cls(file, stored.offset, _DTYPES[stored.dtype], stored.shape)


class SafetensorsFiles:
    """One safetensors file, or the shards of one set of weights."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the headers.

        Raises PresetFileError for a missing or malformed file, or a tensor that lies in two.
        """
        self._files = tuple(files)
        self._places: dict[str, _Place] = {}
        with ExitStack() as opened:
            for path in files:
                file = opened.enter_context(open_file(path))
                for name, stored in read_header(file, path).items():
                    if name in self._places:
                        raise PresetFileError(f"{path} holds {name} once more")
                    self._places[name] = _Place.of(stored, file)
            self._opened = opened.pop_all()

    @classmethod
    def in_directory(cls, directory: Path, stem: str) -> Self:
        """Open `stem.safetensors`, or the shards that `stem.safetensors.index.json` names.

        Raises PresetFileError for a missing or malformed file and for a shard elsewhere.
        """
        index = f"{stem}.safetensors.index.json"
        if not (directory / index).is_file():
            return cls([directory / f"{stem}.safetensors"])
        names = preset_files.read_model(directory, index, _Index).weight_map.values()
        return cls(files_beside(directory / index, names))

    @property
    def where(self) -> Path:
        return self._files[0] if len(self._files) == 1 else self._files[0].parent

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: place.shape for name, place in self._places.items()}

    def dtype(self, name: str) -> torch.dtype:
        return self._places[name].dtype

    def read(self, name: str, out: Tensor | None = None) -> Tensor:
        place = self._places[name]
        return read_tensor(place.file, place.offset, place.dtype, place.shape, out)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()


class _Index(BaseModel):
    """`….safetensors.index.json`: which file holds each tensor."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    weight_map: dict[str, str]


def save_safetensors(state: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors under their names, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    with preset_files.replacing(file) as written:
        save_file(tensors, written)
        written.chmod(READABLE_BY_ALL)  # safetensors makes it the owner's alone


def save_shards(state: Mapping[str, Tensor], directory: Path, stem: str, max_bytes: float) -> None:
    """Write `stem.safetensors`, or shards of at most `max_bytes` each and their index.

    A tensor larger than that has a shard of its own. Takes away what would be read instead.
    """
    shards = _split(state, max_bytes)
    whole, index = f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    if len(shards) == 1:
        save_safetensors(state, directory / whole)
        (directory / index).unlink(missing_ok=True)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        save_safetensors(shard, directory / name)
        weight_map |= dict.fromkeys(shard, name)
    total = sum(tensor.nbytes for tensor in state.values())
    contents = {"metadata": {"total_size": total}, "weight_map": weight_map}
    preset_files.write_json(directory, index, contents)
    (directory / whole).unlink(missing_ok=True)


def _split(state: Mapping[str, Tensor], max_bytes: float) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    free_bytes = max_bytes
    for name, tensor in state.items():
        if shards[-1] and tensor.nbytes > free_bytes:
            shards.append({})
            free_bytes = max_bytes
        shards[-1][name] = tensor
        free_bytes -= tensor.nbytes
    return shards


def open_transformers_weights(directory: Path) -> SafetensorsFiles:
    """Open the `model.safetensors` of transformers, or its shards.

    Raises PresetFileError for a missing or malformed file, PickleError for weights only in one.
    """
    has_safetensors = any(directory.glob(f"{preset_files.WEIGHTS_STEM}.safetensors*"))
    pickled = [name for name in PICKLED_WEIGHTS_FILES if (directory / name).is_file()]
    if pickled and not has_safetensors:
        raise PickleError(
            f"{directory} holds its weights in {pickled[0]}, a pickle, which can run code and is "
            "not read; save them as safetensors with transformers' save_pretrained"
        )
    return SafetensorsFiles.in_directory(directory, preset_files.WEIGHTS_STEM)


def transformers_prefix(directory: Path, prefix: str) -> str:
    """Say what the backbone's tensors begin with: `prefix` below a head, nothing in a bare model.

    Raises PresetFileError as `open_transformers_weights` does.
    """
    with open_transformers_weights(directory) as weights:
        is_below_head = any(name.startswith(prefix) for name in weights.shapes)
    return prefix if is_below_head else ""
