"""Sizes known before loading, against pipelines that are loaded and models as published."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.errors import PresetError
from models.flux.placement import FluxSizes, Placement
from models.flux.sizes import read_sizes
from models.flux.text_to_image import TextToImage
from models.presets import get_preset
from tests.models.flux.conftest import tiny_transformer
from tests.models.flux.loops import Pipelines
from tests.models.flux.real_sizes import real_sizes


def num_bytes(module: nn.Module) -> int:
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
    return sum(tensor.nbytes for tensor in tensors)


def check_against(sizes: FluxSizes, pipeline: TextToImage) -> None:
    backbone, encoders = pipeline.backbone, pipeline.text_encoders
    assert sizes.block_bytes == tuple(map(num_bytes, backbone.blocks))
    assert sum(sizes.block_bytes) + sizes.other_transformer_bytes == num_bytes(backbone)
    assert sizes.clip_bytes == num_bytes(encoders.clip)
    assert sizes.t5_block_bytes == tuple(map(num_bytes, encoders.t5.blocks))
    assert sum(sizes.t5_block_bytes) + sizes.other_t5_bytes == num_bytes(encoders.t5)
    assert sizes.autoencoder_bytes == num_bytes(pipeline.autoencoder)
    parameters = [each for module in pipeline.modules for each in module.parameters()]
    assert sizes.num_parameters == sum(each.numel() for each in parameters)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_sizes_are_those_of_the_loaded_pipeline(
    pipelines: Pipelines, dtype: torch.dtype | None
) -> None:
    directory = pipelines["schnell"][1]
    check_against(read_sizes(directory, dtype), TextToImage.from_preset(directory, dtype=dtype))


def test_float8_blocks_are_as_large_as_they_are_loaded(pipelines: Pipelines) -> None:
    directory = pipelines["dev"][1]
    loaded = TextToImage.from_preset(directory, placement=Placement(float8=True))
    measured = tuple(map(num_bytes, loaded.backbone.blocks))
    assert read_sizes(directory).float8_block_bytes == measured


def test_sizes_say_what_activations_depend_on(pipelines: Pipelines) -> None:
    sizes = read_sizes(pipelines["dev"][1])
    assert (sizes.hidden_size, sizes.num_heads, sizes.mlp_ratio) == (32, 2, 4.0)
    assert sizes.autoencoder_widths == (8, 8, 8, 8)
    assert not sizes.is_float8


def test_a_checkpoint_in_float8_says_so(pipelines: Pipelines, tmp_path: Path) -> None:
    directory = tmp_path / "flux"
    oracle, _ = pipelines["dev"]
    oracle.save_pretrained(directory)
    in_float8 = tiny_transformer(has_guidance=True).to(torch.float8_e4m3fn)
    in_float8.save_pretrained(directory / "transformer")
    sizes = read_sizes(directory)
    assert sizes.is_float8
    assert sizes.block_bytes == read_sizes(pipelines["dev"][1], torch.bfloat16).block_bytes


def test_the_published_models_have_their_published_numbers_of_parameters() -> None:
    for name in ("flux_dev", "flux_schnell"):
        sizes = real_sizes(name)
        transformer = sum(sizes.block_bytes) + sizes.other_transformer_bytes
        assert transformer == 2 * get_preset(name).num_parameters
        assert len(sizes.block_bytes) == 19 + 38
        t5 = sum(sizes.t5_block_bytes) + sizes.other_t5_bytes
        assert t5 == 2 * 4_762_310_656  # of google/t5-v1_1-xxl, the encoder
        assert sizes.autoencoder_bytes == 2 * 83_819_683
        assert 0.5 < sum(sizes.float8_block_bytes) / sum(sizes.block_bytes) < 0.501


def test_sizes_of_a_model_of_another_task_are_refused(pipelines: Pipelines, tmp_path: Path) -> None:
    pipelines["dev"][0].save_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxKontextPipeline"}')
    with pytest.raises(PresetError, match=r"FLUX\.1 Kontext: an editing model"):
        read_sizes(tmp_path)
