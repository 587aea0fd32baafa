"""The autoencoder from both layouts against diffusers, float32 on the CPU.

The map under test goes from diffusers' names to the original's; the oracle is diffusers' own
conversion, which goes the other way, on a file that it has not seen before.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import load_file
from torch import Tensor

from models.errors import PresetFileError, WeightsError
from models.flux.autoencoder import Autoencoder
from models.flux.formats.autoencoder_files import load_autoencoder, load_original
from models.flux.part_configs import AutoencoderConfig
from tests.models.flux.original_files import tiny_autoencoder, write

# (diffusers, original) of what is renamed once, at any place of a name
SAME_PLACE = (
    ("down_blocks", "down"),
    ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
    ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
    ("mid_block.attentions.0.to_", "mid.attn_1."),
    ("mid_block.resnets.0", "mid.block_1"),
    ("mid_block.resnets.1", "mid.block_2"),
    ("up_blocks.0", "up.3"),
    ("up_blocks.1", "up.2"),
    ("up_blocks.2", "up.1"),
    ("up_blocks.3", "up.0"),
    ("resnets", "block"),
    ("samplers.0", "sample"),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
)


def original_autoencoder(oracle: AutoencoderKL) -> dict[str, Tensor]:
    made = {}
    for name, tensor in oracle.state_dict().items():
        for theirs, original in SAME_PLACE:
            name = name.replace(theirs, original)
        is_projection = "attn_1" in name and tensor.ndim == 2
        made[name] = tensor[:, :, None, None] if is_projection else tensor
    return made


def check_equal(autoencoder: Autoencoder, oracle: AutoencoderKL) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(1, 3, 32, 48, generator=generator)
    latents = torch.randn(1, 16, 4, 6, generator=generator)
    with torch.inference_mode():
        means = autoencoder.encode(images).mean, oracle.encode(images).latent_dist.mean
        decoded = autoencoder.decode(latents), oracle.decode(latents).sample
    torch.testing.assert_close(*means, atol=1e-5, rtol=0)
    torch.testing.assert_close(*decoded, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def oracle() -> AutoencoderKL:
    return tiny_autoencoder()


@pytest.fixture
def tensors(oracle: AutoencoderKL) -> dict[str, Tensor]:
    return original_autoencoder(oracle)


def test_the_original_encodes_and_decodes_as_diffusers(
    tmp_path: Path, oracle: AutoencoderKL, tensors: dict[str, Tensor]
) -> None:
    write(tmp_path / "ae.safetensors", tensors)

    check_equal(load_autoencoder(tmp_path, "cpu", None), oracle)


def test_the_original_loads_as_diffusers_converts_it(
    tmp_path: Path, oracle: AutoencoderKL, tensors: dict[str, Tensor]
) -> None:
    file = write(tmp_path / "ae.safetensors", tensors)

    loaded = load_original(file, "cpu", None)

    converted = convert_ldm_vae_checkpoint(load_file(file), oracle.config)
    torch.testing.assert_close(dict(loaded.state_dict()), converted, atol=0, rtol=0)


def test_the_original_has_the_configuration_of_diffusers_file(
    tmp_path: Path, oracle: AutoencoderKL, tensors: dict[str, Tensor]
) -> None:
    loaded = load_original(write(tmp_path / "ae.safetensors", tensors), "cpu", None)

    assert loaded.config == AutoencoderConfig.model_validate(json.loads(oracle.to_json_string()))


@pytest.mark.parametrize("prefix", ["vae.", "first_stage_model."])
def test_an_all_in_one_file_gives_its_autoencoder(
    tmp_path: Path, oracle: AutoencoderKL, tensors: dict[str, Tensor], prefix: str
) -> None:
    merged = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    merged["model.diffusion_model.img_in.weight"] = torch.ones(2)
    write(tmp_path / "flux1-merged.safetensors", merged)

    check_equal(load_autoencoder(tmp_path, "cpu", None), oracle)


def test_the_folder_of_diffusers_wins_over_the_original(
    tmp_path: Path, oracle: AutoencoderKL, tensors: dict[str, Tensor]
) -> None:
    oracle.save_pretrained(tmp_path / "vae")
    write(tmp_path / "ae.safetensors", {name: tensor + 1 for name, tensor in tensors.items()})

    check_equal(load_autoencoder(tmp_path, "cpu", None), oracle)


def test_weights_go_to_the_dtype_that_is_asked_for(
    tmp_path: Path, oracle: AutoencoderKL, tensors: dict[str, Tensor]
) -> None:
    loaded = load_original(write(tmp_path / "x.safetensors", tensors), "cpu", torch.bfloat16)

    wanted = {name: tensor.bfloat16() for name, tensor in oracle.state_dict().items()}
    torch.testing.assert_close(dict(loaded.state_dict()), wanted, atol=0, rtol=0)


def test_what_does_not_fit_is_named(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    del tensors["decoder.up.2.block.1.conv2.bias"]
    tensors["quant_conv.weight"] = torch.ones(1)
    file = write(tmp_path / "ae.safetensors", tensors)

    with pytest.raises(
        WeightsError,
        match=r"missing: decoder.up.2.block.1.conv2.bias; left over: quant_conv.weight",
    ):
        load_original(file, "cpu", None)


def test_what_does_not_fit_in_the_folder_is_named(tmp_path: Path, oracle: AutoencoderKL) -> None:
    oracle.save_pretrained(tmp_path / "vae")
    file = tmp_path / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["extra"] = tensors.pop("decoder.conv_in.bias")
    write(file, tensors)

    with pytest.raises(WeightsError, match=r"missing: decoder.conv_in.bias; left over: extra"):
        load_autoencoder(tmp_path, "cpu", None)


def test_a_folder_of_another_design_is_refused(tmp_path: Path, oracle: AutoencoderKL) -> None:
    oracle.save_pretrained(tmp_path / "vae")
    file = tmp_path / "vae/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_tanh": True}))

    with pytest.raises(PresetFileError, match=r"vae/config.json is malformed: (.|\n)*use_tanh"):
        load_autoencoder(tmp_path, "cpu", None)


def test_a_directory_without_an_autoencoder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "flux1-dev.safetensors", {"img_in.weight": torch.ones(2)})

    with pytest.raises(PresetFileError, match=r"has no autoencoder: neither vae/ nor ae.safeten"):
        load_autoencoder(tmp_path, "cpu", None)


def test_a_file_of_something_else_is_refused(tmp_path: Path, oracle: AutoencoderKL) -> None:
    oracle.save_pretrained(tmp_path)
    file = shutil.move(tmp_path / "diffusion_pytorch_model.safetensors", tmp_path / "x.safetensors")

    with pytest.raises(PresetFileError, match="widths"):
        load_original(Path(file), "cpu", None)
