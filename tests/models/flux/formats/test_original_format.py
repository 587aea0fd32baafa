"""The original's single file of Flux weights against diffusers, float32 on the CPU."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from torch import Tensor

from models import Backbone, FluxBackbone
from models.errors import PresetError, PresetFileError, WeightsError
from models.flux.formats.diffusers_weights import to_diffusers
from models.presets.formats import read_stored
from tests.models.flux.conftest import tiny_transformer
from tests.models.flux.original_files import original_transformer, tiny_original, write
from tests.models.flux.test_backbone import ask, inputs

ALL_IN_ONE = "model.diffusion_model."


@pytest.fixture(scope="module", params=["flux1-dev", "flux1-schnell"])
def original(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FluxTransformer2DModel, Path]:
    """The oracle, and the file of its weights."""
    oracle = tiny_original(has_guidance=request.param == "flux1-dev")
    directory = tmp_path_factory.mktemp("original")
    return oracle, write(directory / f"{request.param}.safetensors", original_transformer(oracle))


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return original_transformer(tiny_original(has_guidance=False))


def check_velocities(backbone: Backbone, oracle: FluxTransformer2DModel) -> None:
    given = inputs(64, 48)
    with torch.inference_mode():
        velocity = backbone(**given)
    torch.testing.assert_close(velocity, ask(oracle, given), atol=2e-5, rtol=0)


def test_velocities_of_a_file_equal_diffusers(
    original: tuple[FluxTransformer2DModel, Path],
) -> None:
    oracle, file = original
    check_velocities(Backbone.from_preset(file), oracle)


@pytest.mark.parametrize("preset", ["flux_dev", "flux_schnell"])
def test_the_originals_names_and_rows_are_those_that_diffusers_converts(preset: str) -> None:
    with torch.device("meta"):
        backbone = Backbone.from_preset(preset, False, depth=2, depth_single_blocks=2)
    # of their true heights, which the conversion splits, and one column
    original = {name: torch.randn(len(each), 1) for name, each in backbone.state_dict().items()}

    converted = convert_flux_transformer_checkpoint_to_diffusers(dict(original))

    ours = to_diffusers(original, hidden_size=3072)
    assert ours.keys() == converted.keys()
    assert all(torch.equal(tensor, converted[name]) for name, tensor in ours.items())


def test_a_directory_with_one_such_file_is_a_preset(
    original: tuple[FluxTransformer2DModel, Path],
) -> None:
    oracle, file = original
    check_velocities(FluxBackbone.from_preset(str(file.parent)), oracle)


def test_an_all_in_one_file_gives_its_transformer(tmp_path: Path) -> None:
    oracle = tiny_original(has_guidance=True)
    tensors = {f"{ALL_IN_ONE}{k}": v for k, v in original_transformer(oracle).items()}
    tensors["vae.decoder.conv_in.weight"] = torch.ones(2)
    tensors["text_encoders.clip_l.logit_scale"] = torch.ones(())
    file = write(tmp_path / "merged.safetensors", tensors)

    check_velocities(Backbone.from_preset(file), oracle)


def test_sizes_come_from_the_shapes(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    config = read_stored(write(tmp_path / "x.safetensors", tensors)).config

    assert config["gelu_approximate"] == "tanh"
    assert config["axes_dim"] == (16, 56, 56)
    assert (config["hidden_size"], config["num_heads"], config["mlp_ratio"]) == (256, 2, 4.0)
    assert (config["depth"], config["depth_single_blocks"]) == (2, 3)
    assert config["guidance_embed"] is False


def test_another_head_width_needs_its_axes(tmp_path: Path) -> None:
    oracle = tiny_transformer(has_guidance=True)
    file = write(tmp_path / "x.safetensors", original_transformer(oracle))

    with pytest.raises(PresetError, match="axes_dim"):
        Backbone.from_preset(file)
    check_velocities(Backbone.from_preset(file, axes_dim=(4, 6, 6)), oracle)


def test_what_is_missing_left_over_and_of_a_wrong_shape_is_named(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    del tensors["double_blocks.1.txt_mlp.2.bias"]
    tensors["double_blocks.0.img_mod.lin.bias"] = torch.ones(7)
    file = write(tmp_path / "x.safetensors", tensors | {"vae.extra": torch.ones(1)})

    with pytest.raises(
        WeightsError,
        match=r"missing: double_blocks.1.txt_mlp.2.bias; left over: vae.extra; of a wrong shape: "
        r"double_blocks.0.img_mod.lin.bias is \[7\]",
    ):
        Backbone.from_preset(file)


def test_a_part_that_nobody_knows_is_left_over_in_an_all_in_one_file(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    merged = {f"{ALL_IN_ONE}{k}": v for k, v in tensors.items()} | {"ema.x": torch.ones(1)}

    with pytest.raises(WeightsError, match=r"left over: ema\.x"):
        Backbone.from_preset(write(tmp_path / "x.safetensors", merged))


def test_a_missing_block_in_the_middle_is_named(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    kept = {name: tensor for name, tensor in tensors.items() if "single_blocks.1." not in name}

    with pytest.raises(WeightsError, match=r"missing: single_blocks\.1\."):
        Backbone.from_preset(write(tmp_path / "x.safetensors", kept))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "x.safetensors", {"conv.weight": torch.ones(2)})

    with pytest.raises(PresetFileError, match=r"no original Flux transformer: it has no img_in"):
        Backbone.from_preset(file)


def test_a_directory_with_several_such_files_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    for name in ("dev", "schnell"):
        write(tmp_path / f"flux1-{name}.safetensors", tensors)

    with pytest.raises(PresetFileError, match=r"flux1-dev.safetensors, flux1-schnell.safetensors"):
        Backbone.from_preset(tmp_path)
