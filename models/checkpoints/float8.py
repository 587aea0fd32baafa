"""Safetensors files whose weights may be float8: read as the numbers that they stand for.

Or as they are stored, for who keeps them so. Two ways are in use for single-file FLUX.1 checkpoints
(ComfyUI, comfy/ops.py and quant_ops.py): a plain cast, and weights divided by a scale that lies
beside them. Knows nothing about modules.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints.safetensors_files import SafetensorsFiles
from models.errors import PresetFileError
from models.layers.float8_storage import FLOAT8, Float8Matrix

MARKER = "scaled_fp8"  # empty; says that scales lie beside the weights, which is seen anyway
SCALES = ("scale_weight", "weight_scale")
# The scale of the layer's input, for products in float8. Here they run in a wider dtype.
INPUT_SCALES = ("scale_input", "input_scale")
FORMAT = "comfy_quant"  # JSON that names the format of the layer's weight
FORMATS = ("float8_e4m3fn", "float8_e5m2")


@dataclass(frozen=True, slots=True)
class _Companions:
    """The tensors that lie beside `layer.weight` because of its dtype."""

    scale: str | None
    format: str | None


class Float8Files(SafetensorsFiles):
    """Files that hold float8 or not; scales are part of the weights, not tensors of their own."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the headers.

        Raises PresetFileError for a missing or malformed file, and for scales that do not go with
        their weights.
        """
        super().__init__(files)
        stored = super().shapes
        self._companions = {
            name: _companions(name, stored) for name in stored if _ends(name, "weight")
        }
        self._hidden = {name for name in stored if _is_companion(name, stored)}
        try:
            for name, companions in self._companions.items():
                if companions.scale is not None:
                    self._check_scale(name, companions.scale)
        except PresetFileError:
            self._opened.close()
            raise

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape of every tensor but those that only say how another is stored."""
        return {name: shape for name, shape in super().shapes.items() if name not in self._hidden}

    def dtype(self, name: str) -> torch.dtype:
        """Say float32 for what is scaled, bfloat16 for plain float8."""
        companions, stored = self._companions.get(name), super().dtype(name)
        if companions is not None and companions.scale is not None:
            return torch.float32
        return torch.bfloat16 if stored in FLOAT8 else stored

    @property
    def pipeline_dtype(self) -> torch.dtype | None:
        """The one dtype to compute in: bfloat16 where there is float8; None: as stored."""
        has_float8 = any(place.dtype in FLOAT8 for place in self._places.values())
        return torch.bfloat16 if has_float8 else None

    def read(self, name: str, out: Tensor | None = None) -> Tensor:
        """Read one tensor to the CPU: float32 where it is scaled, bfloat16 for plain float8.

        bfloat16 holds all values of both float8 dtypes. Raises PresetFileError where the file ends
        too early, and for a format other than float8.
        """
        scale = self._read_scale(name)
        if scale is None:
            shape, dtype = self._places[name].shape, self.dtype(name)
            target = torch.empty(shape, dtype=dtype, device="cpu") if out is None else out
            return super().read(name, target)
        tensor = super().read(name).float()
        if len(scale) > 1:  # one per row
            scale = scale.reshape(-1, *[1] * (tensor.ndim - 1))
        tensor.mul_(scale)
        return tensor if out is None else out.copy_(tensor)

    def read_float8(self, name: str) -> Float8Matrix | None:
        """Read a matrix to the CPU as it is stored; None for one that is not in float8.

        Raises PresetFileError as `read` does.
        """
        place = self._places[name]
        if place.dtype not in FLOAT8 or len(place.shape) != 2:
            return None
        scale = self._read_scale(name)
        rows = torch.ones(place.shape[0], 1, device="cpu")  # a factor of one is exact
        return Float8Matrix(super().read(name), rows if scale is None else rows * scale[:, None])

    def _read_scale(self, name: str) -> Tensor | None:
        """Read one number, or one per row: [1] or [rows] float32; None where there is no scale."""
        companions = self._companions.get(name)
        if companions is not None and companions.format is not None:
            self._check_format(name, companions.format)
        if companions is None or companions.scale is None:
            return None
        return super().read(companions.scale).float().flatten()

    def _check_scale(self, name: str, scale: str) -> None:
        stored = super().shapes
        rows = stored[name][:1]
        if stored[scale] not in ((), (1,), (1, 1), rows, (*rows, 1)):
            raise PresetFileError(
                f"{self.where}: {scale} is {list(stored[scale])} for a weight of "
                f"{list(stored[name])}; one number, or one per row, is allowed"
            )

    def _check_format(self, name: str, companion: str) -> None:
        try:
            said = json.loads(super().read(companion).numpy().tobytes())["format"]
        except (KeyError, TypeError, ValueError) as error:
            raise PresetFileError(f"{self.where}: {companion} is malformed: {error}") from error
        if said not in FORMATS:
            raise PresetFileError(
                f"{self.where}: {name} is of format {said!r}; {' and '.join(FORMATS)} are allowed"
            )


def _companions(name: str, stored: Mapping[str, tuple[int, ...]]) -> _Companions:
    layer = name.removesuffix("weight")
    scales = [f"{layer}{ending}" for ending in SCALES if f"{layer}{ending}" in stored]
    described = f"{layer}{FORMAT}"
    return _Companions(next(iter(scales), None), described if described in stored else None)


def _is_companion(name: str, stored: Mapping[str, tuple[int, ...]]) -> bool:
    if _ends(name, MARKER):
        return True
    ending = name.rpartition(".")[2]
    weight = f"{name.removesuffix(ending)}weight"
    return ending in (*SCALES, *INPUT_SCALES, FORMAT) and weight in stored


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")
