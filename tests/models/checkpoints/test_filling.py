"""Filling a module: what is checked, what is read, and where it goes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.checkpoints.filling import Target, fill
from models.checkpoints.safetensors_files import SafetensorsFiles, save_safetensors
from models.checkpoints.weights import Recipe, identity_recipes
from models.errors import PresetFileError, WeightsError
from models.layers.adapters import Linear
from tests.models.checkpoints.test_weights import write
from tests.models.random_weights import randomise


def linear_on_meta() -> nn.Linear:
    with torch.device("meta"):
        return nn.Linear(3, 2)


def test_every_tensor_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = nn.Linear(3, 2)
    randomise(saved, seed=1)
    save_safetensors(saved.state_dict(), tmp_path / "weights.safetensors")
    loaded = linear_on_meta()
    with SafetensorsFiles([tmp_path / "weights.safetensors"]) as weights:
        fill(loaded, weights, identity_recipes(loaded))
    for name, tensor in saved.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


def test_no_dtype_keeps_the_files(tmp_path: Path) -> None:
    loaded = linear_on_meta()
    with write(tmp_path, weight=torch.randn(2, 3).bfloat16(), bias=torch.randn(2)) as weights:
        fill(loaded, weights, identity_recipes(loaded), Target(dtype=None))
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


def test_a_file_that_shrinks_while_it_is_read_changes_nothing(tmp_path: Path) -> None:
    module = linear_on_meta()
    with write(tmp_path, weight=torch.randn(2, 3), bias=torch.randn(2)) as weights:
        file = tmp_path / "weights.safetensors"
        file.write_bytes(file.read_bytes()[:-4])
        with pytest.raises(PresetFileError, match=r"weights.safetensors is cut short: 4 bytes"):
            fill(module, weights, identity_recipes(module))
    assert all(parameter.is_meta for parameter in module.parameters())


def test_integers_where_a_parameter_should_be_are_named(tmp_path: Path) -> None:
    loaded = linear_on_meta()
    with (
        write(tmp_path, weight=torch.ones(2, 3, dtype=torch.int8), bias=torch.ones(2)) as weights,
        pytest.raises(WeightsError, match=r"of no floating dtype: weight is torch\.int8"),
    ):
        fill(loaded, weights, identity_recipes(loaded))


class _Unread(SafetensorsFiles):
    """Files whose tensors must not be read."""

    def read(self, name: str, out: Tensor | None = None) -> Tensor:
        raise AssertionError(f"{name} was read into {out}")


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[SafetensorsFiles]:
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    with write(tmp_path, weight=weight.bfloat16(), bias=torch.ones(2)) as weights:
        yield weights


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_on_the_meta_device_only_shapes_and_dtypes_are_taken(
    stored: SafetensorsFiles, dtype: torch.dtype | None
) -> None:
    loaded = linear_on_meta()
    with _Unread([stored.where]) as unread:
        fill(loaded, unread, identity_recipes(loaded), Target("meta", dtype))
    assert loaded.weight.is_meta
    assert loaded.weight.dtype == (dtype or torch.bfloat16)
    assert loaded.bias.dtype == (dtype or torch.float32)


def test_a_float8_weight_is_rounded_and_the_bias_is_kept(stored: SafetensorsFiles) -> None:
    with torch.device("meta"):
        loaded = Linear(3, 2)
    fill(loaded, stored, identity_recipes(loaded), Target(float8_names={"weight"}))
    assert loaded.weight.dtype == torch.float8_e4m3fn
    assert loaded.bias.dtype == torch.float32
    # half of the step of three bits below the largest number of a row
    torch.testing.assert_close(
        loaded.merged_weight(), stored.read("weight").float(), atol=0, rtol=2**-4
    )
