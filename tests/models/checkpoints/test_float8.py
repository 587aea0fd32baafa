"""Float8 files: every weight is exactly the number that it stands for."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import Backbone
from models.checkpoints.float8 import Float8Files
from models.errors import PresetFileError, WeightsError
from models.flux.parts import load_backbone
from tests.models.flux.original_files import original_transformer, tiny_original, write

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return original_transformer(tiny_original(has_guidance=True))


def scaled(
    tensors: dict[str, Tensor], ending: str, per_row: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Quantise all matrices; return what is stored and what it stands for."""
    stored: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            stored[name] = meant[name] = tensor
            continue
        peak = tensor.abs().amax(dim=1, keepdim=True) if per_row else tensor.abs().max()
        scale = peak / torch.finfo(E4M3).max
        stored[name] = (tensor / scale).to(E4M3)
        stored[f"{name.removesuffix('weight')}{ending}"] = scale
        meant[name] = stored[name].float() * scale
    return stored, meant


def check_weights(backbone: Backbone, meant: dict[str, Tensor]) -> None:
    torch.testing.assert_close(backbone.state_dict(), meant, atol=0, rtol=0, check_dtype=True)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_a_plain_cast_is_undone_exactly(
    tmp_path: Path, tensors: dict[str, Tensor], dtype: torch.dtype
) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    kept = "img_in.weight"
    stored[kept] = tensors[kept]
    file = write(tmp_path / "x.safetensors", stored)

    check_weights(Backbone.from_preset(file), {n: tensor.float() for n, tensor in stored.items()})


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("ending", ["scale_weight", "weight_scale"])
def test_scales_are_multiplied_in(
    tmp_path: Path, tensors: dict[str, Tensor], ending: str, per_row: bool
) -> None:
    stored, meant = scaled(tensors, ending, per_row)

    check_weights(Backbone.from_preset(write(tmp_path / "x.safetensors", stored)), meant)


def test_marker_and_input_scales_are_no_weights(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    stored, meant = scaled(tensors, "scale_weight")
    stored |= {"scaled_fp8": torch.empty(0, dtype=E4M3), "img_in.scale_input": torch.ones(())}
    stored["txt_in.input_scale"] = torch.ones(1)
    file = write(tmp_path / "x.safetensors", stored, prefix="model.diffusion_model.")

    check_weights(Backbone.from_preset(file), meant)


def test_a_pipeline_computes_in_bfloat16_unless_it_is_told(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    stored, meant = scaled(tensors, "weight_scale")
    file = write(tmp_path / "x.safetensors", stored)

    check_weights(load_backbone(file, "cpu", None), {n: t.bfloat16() for n, t in meant.items()})
    check_weights(load_backbone(file, "cpu", torch.float32), meant)


def test_a_file_without_float8_keeps_its_dtype(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    file = write(tmp_path / "x.safetensors", halves)

    check_weights(load_backbone(file, "cpu", None), halves)


def test_a_scale_of_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    tensors = {"x.weight": torch.ones(4, 2).to(E4M3), "x.weight_scale": torch.ones(2)}
    file = write(tmp_path / "x.safetensors", tensors)

    with pytest.raises(PresetFileError, match=r"x\.weight_scale is \[2\] for a weight of \[4, 2\]"):
        Float8Files([file])


def test_a_scale_without_its_weight_is_left_over(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    file = write(tmp_path / "x.safetensors", tensors | {"nothing.scale_weight": torch.ones(1)})

    with pytest.raises(WeightsError, match=r"left over: nothing\.scale_weight"):
        Backbone.from_preset(file)


def test_a_format_that_is_not_float8_is_refused(tmp_path: Path) -> None:
    written = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)
    tensors = {"x.weight": torch.ones(4, 2), "x.comfy_quant": written}

    with (
        Float8Files([write(tmp_path / "x.safetensors", tensors)]) as weights,
        pytest.raises(PresetFileError, match="is of format 'nvfp4'; float8_e4m3fn"),
    ):
        weights.read("x.weight")


def test_a_layer_that_says_it_is_float8_is_read(tmp_path: Path) -> None:
    written = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    weight = torch.tensor([[1.0, -2.0]]).to(E4M3)
    tensors = {"weight": weight, "weight_scale": torch.tensor(0.3), "comfy_quant": written}

    with Float8Files([write(tmp_path / "x.safetensors", tensors)]) as weights:
        read = weights.read("weight")
        assert weights.shapes == {"weight": (1, 2)}

    torch.testing.assert_close(read, torch.tensor([[0.3, -0.6]]), atol=0, rtol=0)
