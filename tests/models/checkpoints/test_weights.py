"""Tensors on disk: what `fill` checks, reads and refuses."""

import json
from io import FileIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.checkpoints.safetensors_files import SafetensorsFiles, save_safetensors
from models.checkpoints.weights import Recipe, fill, identity_recipes, read_tensor
from models.errors import PresetFileError, WeightsError
from tests.models.random_weights import randomise


def linear_on_meta() -> nn.Linear:
    with torch.device("meta"):
        return nn.Linear(3, 2)


def write(directory: Path, **tensors: Tensor) -> SafetensorsFiles:
    save_file(tensors, directory / "weights.safetensors")
    return SafetensorsFiles([directory / "weights.safetensors"])


def test_every_tensor_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = nn.Linear(3, 2)
    randomise(saved, seed=1)
    save_safetensors(saved.state_dict(), tmp_path / "weights.safetensors")
    loaded = linear_on_meta()
    with SafetensorsFiles([tmp_path / "weights.safetensors"]) as weights:
        fill(loaded, weights, identity_recipes(loaded))
    for name, tensor in saved.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn]
)
def test_every_floating_dtype_is_read_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.randn(5, 7).to(dtype)
    with write(tmp_path, x=tensor, scalar=torch.tensor(2.5), none=torch.empty(0, 3)) as weights:
        assert torch.equal(weights.read("x").view(torch.uint8), tensor.view(torch.uint8))
        assert weights.read("scalar") == 2.5
        assert weights.read("none").shape == (0, 3)


def test_no_dtype_keeps_the_files(tmp_path: Path) -> None:
    loaded = linear_on_meta()
    with write(tmp_path, weight=torch.randn(2, 3).bfloat16(), bias=torch.randn(2)) as weights:
        fill(loaded, weights, identity_recipes(loaded), dtype=None)
    assert (loaded.weight.dtype, loaded.bias.dtype) == (torch.bfloat16, torch.float32)


def test_a_recipe_joins_and_turns_stored_tensors(tmp_path: Path) -> None:
    top, bottom, bias = torch.randn(3, 1), torch.randn(3, 1), torch.randn(2)
    recipes = {
        "weight": Recipe(("top", "bottom"), lambda *parts: torch.cat([p.t() for p in parts])),
        "bias": Recipe(("bias",)),
    }
    loaded = linear_on_meta()
    with write(tmp_path, top=top, bottom=bottom, bias=bias) as weights:
        fill(loaded, weights, recipes)
    torch.testing.assert_close(loaded.weight.data, torch.stack((top[:, 0], bottom[:, 0])))


def test_every_fault_is_named_before_anything_is_read(tmp_path: Path) -> None:
    loaded = linear_on_meta()
    with (
        write(tmp_path, weight=torch.randn(3, 2), extra=torch.randn(1)) as weights,
        pytest.raises(WeightsError) as raised,
    ):
        fill(loaded, weights, identity_recipes(loaded))
    message = str(raised.value)
    assert "missing: bias" in message
    assert "left over: extra" in message
    assert "of a wrong shape: weight is [3, 2], for [2, 3]" in message
    assert loaded.weight.is_meta


def test_what_belongs_to_another_module_is_ignored_only_when_told_so(tmp_path: Path) -> None:
    loaded = linear_on_meta()
    with write(tmp_path, weight=torch.ones(2, 3), bias=torch.ones(2), head=torch.ones(1)) as stored:
        fill(loaded, stored, identity_recipes(loaded), is_ignored=lambda name: name == "head")
    assert not loaded.weight.is_meta


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


def test_a_file_that_shrinks_while_it_is_read_changes_nothing(tmp_path: Path) -> None:
    module = linear_on_meta()
    with write(tmp_path, weight=torch.randn(2, 3), bias=torch.randn(2)) as weights:
        file = tmp_path / "weights.safetensors"
        file.write_bytes(file.read_bytes()[:-4])
        with pytest.raises(PresetFileError, match=r"weights.safetensors is cut short: 4 bytes"):
            fill(module, weights, identity_recipes(module))
    assert all(parameter.is_meta for parameter in module.parameters())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = FileIO(tmp_path / "weights.safetensors", "w")  # open, but not for reading
    with file, pytest.raises(PresetFileError, match=r"weights.safetensors cannot be read"):
        read_tensor(file, 0, torch.float32, (2,))


def test_integers_where_a_parameter_should_be_are_named(tmp_path: Path) -> None:
    loaded = linear_on_meta()
    with (
        write(tmp_path, weight=torch.ones(2, 3, dtype=torch.int8), bias=torch.ones(2)) as weights,
        pytest.raises(WeightsError, match=r"of no floating dtype: weight is torch\.int8"),
    ):
        fill(loaded, weights, identity_recipes(loaded))
