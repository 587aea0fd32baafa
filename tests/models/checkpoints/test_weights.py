"""Tensors on disk: safetensors files and their shards, whole and broken."""

import json
from io import FileIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoints.safetensors_files import SafetensorsFiles
from models.checkpoints.weights import read_tensor
from models.errors import PresetFileError


def write(directory: Path, **tensors: Tensor) -> SafetensorsFiles:
    save_file(tensors, directory / "weights.safetensors")
    return SafetensorsFiles([directory / "weights.safetensors"])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn]
)
def test_every_floating_dtype_is_read_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.randn(5, 7).to(dtype)
    with write(tmp_path, x=tensor, scalar=torch.tensor(2.5), none=torch.empty(0, 3)) as weights:
        assert torch.equal(weights.read("x").view(torch.uint8), tensor.view(torch.uint8))
        assert weights.read("scalar") == 2.5
        assert weights.read("none").shape == (0, 3)


def test_shards_are_one_set_of_weights(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2, 3)}, tmp_path / "model-1.safetensors")
    save_file({"bias": torch.ones(2)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"weight": "model-1.safetensors", "bias": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with SafetensorsFiles.in_directory(tmp_path, "model") as weights:
        assert weights.shapes == {"weight": (2, 3), "bias": (2,)}


def test_a_shard_outside_of_the_directory_is_refused(tmp_path: Path) -> None:
    index = {"weight_map": {"weight": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PresetFileError, match=r"elsewhere.*not a file beside it"):
        SafetensorsFiles.in_directory(tmp_path, "model")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\xff" * 16,
        b"\x02\x00\x00\x00\x00\x00\x00\x00{}"[:9],
        b"\x02\x00\x00\x00\x00\x00\x00\x00[]",
        b"\x40\x00\x00\x00\x00\x00\x00\x00"
        + b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'.ljust(64),
        b"\x40\x00\x00\x00\x00\x00\x00\x00"
        + b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [-8, 8]}}'.ljust(64)
        + bytes(16),
        b"\x40\x00\x00\x00\x00\x00\x00\x00"
        + b'{"x": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}'.ljust(64)
        + bytes(16),
    ],
)
def test_a_file_that_is_not_safetensors_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(content)
    with pytest.raises(PresetFileError, match=r"weights\.safetensors"):
        SafetensorsFiles([file])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PresetFileError, match=r"none\.safetensors is missing"):
        SafetensorsFiles([tmp_path / "none.safetensors"])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = FileIO(tmp_path / "weights.safetensors", "w")  # open, but not for reading
    with file, pytest.raises(PresetFileError, match=r"weights.safetensors cannot be read"):
        read_tensor(file, 0, torch.float32, (2,))
