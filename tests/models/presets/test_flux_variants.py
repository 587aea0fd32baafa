"""Flux models of other tasks: told by their files, and refused with what they are."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from models import FluxBackbone
from models.errors import PresetError
from models.load import load_pipeline
from models.presets import PresetTask
from models.presets.flux_variants import require_text_to_image
from models.presets.format_detection import detect_task
from tests.models.flux.original_files import write

FILL = r"FLUX\.1 Fill: an inpainting model, which takes a masked image beside the noise"
CONTROL = r"FLUX\.1 Depth or Canny: a control model"
KONTEXT = r"FLUX\.1 Kontext: an editing model"
REDUX = r"FLUX\.1 Redux: an adapter"


def write_pipeline(directory: Path, class_name: str | None, in_channels: int = 64) -> Path:
    """Write what diffusers' saved pipelines say of themselves, with a transformer as theirs."""
    index = "{}" if class_name is None else f'{{"_class_name": "{class_name}"}}'
    FluxTransformer2DModel(
        in_channels=in_channels,
        out_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 6, 6),
    ).save_pretrained(directory / "transformer")
    (directory / "model_index.json").write_text(index)
    return directory


@pytest.mark.parametrize(
    ("class_name", "in_channels", "said"),
    [
        ("FluxFillPipeline", 384, FILL),
        ("FluxControlPipeline", 128, CONTROL),
        ("FluxKontextPipeline", 64, KONTEXT),
        ("FluxPriorReduxPipeline", 64, REDUX),
        ("FluxPipeline", 384, rf"{FILL} \(384 input channels\); text-to-image checkpoints have 64"),
        (None, 128, rf"{CONTROL}.*\(128 input channels\)"),
        (None, 96, r"a Flux model that is not known \(96 input channels\)"),
    ],
)
def test_a_pipeline_of_diffusers_says_what_it_is(
    tmp_path: Path, class_name: str | None, in_channels: int, said: str
) -> None:
    directory = write_pipeline(tmp_path / "flux", class_name, in_channels)
    for refusing in (detect_task, load_pipeline):
        with pytest.raises(PresetError, match=rf"flux: {said}"):
            refusing(directory)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize(
    ("name", "tensors", "said"),
    [
        ("flux1-fill-dev", {"img_in.weight": torch.ones(8, 384)}, rf"{FILL} \(384 input channels"),
        ("flux1-depth-dev", {"img_in.weight": torch.ones(8, 128)}, CONTROL),
        ("flux1-canny-dev", {"img_in.weight": torch.ones(8, 128)}, CONTROL),
        ("flux1-dev-kontext_fp8_scaled", {"img_in.weight": torch.ones(8, 64)}, KONTEXT),
    ],
)
def test_a_single_file_says_what_it_is(
    tmp_path: Path, name: str, tensors: dict[str, Tensor], said: str, prefix: str
) -> None:
    file = write(tmp_path / f"{name}.safetensors", tensors, prefix)
    for path in (file, tmp_path):
        for refusing in (detect_task, load_pipeline):
            with pytest.raises(PresetError, match=rf"{name}\.safetensors: {said}"):
                refusing(path)


def test_redux_is_told_by_its_tensors(tmp_path: Path) -> None:
    tensors = {"redux_up.weight": torch.ones(1), "redux_down.weight": torch.ones(1)}
    file = write(tmp_path / "flux1-redux-dev.safetensors", tensors)
    with pytest.raises(PresetError, match=REDUX):
        load_pipeline(file)


@pytest.mark.parametrize("class_name", ["FluxPipeline", "FluxImg2ImgPipeline", None])
def test_a_text_to_image_model_passes(tmp_path: Path, class_name: str | None) -> None:
    directory = write_pipeline(tmp_path, class_name)
    require_text_to_image(directory)
    assert detect_task(directory) is PresetTask.TEXT_TO_IMAGE


def test_a_backbone_of_other_channels_is_still_a_backbone(tmp_path: Path) -> None:
    backbone = FluxBackbone(
        384, 16, 4.0, 1, depth=1, depth_single_blocks=1, axes_dim=(4, 6, 6), theta=10, use_bias=True
    )
    backbone.save_to_preset(tmp_path)
    assert FluxBackbone.from_preset(tmp_path).input_channels == 384
