"""Flux directories in the layout of diffusers, and in the original's."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file

from models import Backbone
from models.errors import PresetFileError, WeightsError
from models.flux.parts import load_backbone, load_schedule
from models.flux.text_to_image import TextToImage
from models.load import load_pipeline
from tests.models.flux.conftest import tiny_pipeline, tiny_transformer
from tests.models.flux.formats.test_autoencoder_files import original_autoencoder
from tests.models.flux.original_files import (
    original_transformer,
    tiny_autoencoder,
    tiny_original,
    write,
)
from tests.models.flux.test_backbone import ask, inputs

CLASS = '"_class_name": "FluxTransformer2DModel"'


def check_velocities(directory: Path, oracle: FluxTransformer2DModel) -> None:
    given = inputs(64, 48)
    with torch.inference_mode():
        velocity = Backbone.from_preset(directory)(**given)
    torch.testing.assert_close(velocity, ask(oracle, given), atol=2e-5, rtol=0)


@pytest.mark.parametrize("has_guidance", [True, False])
def test_a_transformer_alone_is_a_preset(tmp_path: Path, has_guidance: bool) -> None:
    oracle = tiny_transformer(has_guidance)
    oracle.save_pretrained(tmp_path)

    check_velocities(tmp_path, oracle)


def test_shards_are_read(tmp_path: Path) -> None:
    oracle = tiny_transformer(has_guidance=True)
    oracle.save_pretrained(tmp_path / "transformer", max_shard_size="100KB")
    (tmp_path / "model_index.json").write_text("{}")
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 1

    check_velocities(tmp_path, oracle)


def test_dtype_none_keeps_what_the_files_hold(tmp_path: Path) -> None:
    oracle = tiny_transformer(has_guidance=True).bfloat16()
    oracle.save_pretrained(tmp_path)

    backbone = load_backbone(tmp_path, "cpu", None)

    assert {tensor.dtype for tensor in backbone.state_dict().values()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    tiny_transformer(has_guidance=True).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["extra"] = tensors.pop("single_transformer_blocks.1.attn.to_k.bias")
    tensors["proj_out.bias"] = torch.ones(5)
    write(file, tensors)

    with pytest.raises(
        WeightsError,
        match=r"missing: single_transformer_blocks\.1\.attn\.to_k\.bias; left over: extra; "
        r"of a wrong shape: proj_out\.bias is \[5\], for \[64\]",
    ):
        Backbone.from_preset(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"_class_name": "SD3Transformer2DModel"}', "FluxTransformer2DModel"),
        (f'{{{CLASS}, "in_channels": 384, "out_channels": 64}}', "64 is not in_channels 384"),
        (f'{{{CLASS}, "patch_size": 2}}', "patch_size"),
    ],
)
def test_a_transformer_that_we_do_not_compute_is_refused(
    tmp_path: Path, config: str, message: str
) -> None:
    (tmp_path / "config.json").write_text(config)

    with pytest.raises(PresetFileError, match=rf"(?s)config\.json is malformed.*{message}"):
        Backbone.from_preset(tmp_path)


@pytest.fixture(scope="module", params=["dev", "schnell"])
def original_layout(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FluxPipeline, Path]:
    """The oracle, and a directory with what black-forest-labs publish beside the text encoders."""
    is_dev = request.param == "dev"
    directory = tmp_path_factory.mktemp("layout")
    oracle = tiny_pipeline(has_guidance=is_dev, use_dynamic_shifting=is_dev)
    oracle.set_progress_bar_config(disable=True)
    if not is_dev:  # of schnell's own scheduler_config.json
        oracle.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    oracle.register_modules(transformer=tiny_original(is_dev), vae=tiny_autoencoder())
    oracle.save_pretrained(directory, safe_serialization=True)
    for folder in ("transformer", "vae", "scheduler"):
        shutil.rmtree(directory / folder)
    (directory / "model_index.json").unlink()
    name = f"flux1-{request.param}.safetensors"
    write(directory / name, original_transformer(oracle.transformer))
    write(directory / "ae.safetensors", original_autoencoder(oracle.vae))
    return oracle, directory


def test_the_originals_files_paint_as_diffusers(
    original_layout: tuple[FluxPipeline, Path],
) -> None:
    oracle, directory = original_layout
    pipeline = load_pipeline(directory)
    assert isinstance(pipeline, TextToImage)

    guidance = 3.5 if pipeline.has_guidance else None
    text = pipeline.encode(["a red circle"])
    *_, last = pipeline.denoise(text, [7], 64, 96, 4, guidance)

    expected = oracle(
        "a red circle",
        width=64,
        height=96,
        num_inference_steps=4,
        guidance_scale=3.5,
        generator=torch.Generator().manual_seed(7),
        max_sequence_length=48,
        output_type="latent",
    ).images
    torch.testing.assert_close(last.patches, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("has_guidance", [True, False])
def test_without_a_configuration_the_schedule_is_the_originals(
    tmp_path: Path, has_guidance: bool
) -> None:
    schedule = load_schedule(tmp_path, has_guidance)

    assert schedule.use_dynamic_shifting is has_guidance
    assert schedule.shift == 1.0


def test_a_directory_without_text_encoders_says_what_is_missing(
    original_layout: tuple[FluxPipeline, Path], tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(original_layout[1], tmp_path / "flux"))
    shutil.rmtree(directory / "text_encoder_2")

    with pytest.raises(PresetFileError, match=r"text_encoder_2 is missing, and so is .* t5xxl"):
        TextToImage.from_preset(directory)


def test_a_transformer_file_alone_is_no_pipeline(
    original_layout: tuple[FluxPipeline, Path],
) -> None:
    (file,) = original_layout[1].glob("flux1-*.safetensors")

    with pytest.raises(PresetFileError, match=r"flux1-\w+\.safetensors has no autoencoder"):
        load_pipeline(file)
