"""Directories of transformers' ViT: the same features as transformers from the same files."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import ViTConfig, ViTForMaskedImageModeling, ViTModel

from models import Backbone, ViTBackbone
from models.errors import PickleError, PresetError, PresetFileError, WeightsError
from tests.models.random_weights import WIDE_SPREAD, randomise
from tests.models.vit.transformers_oracles import (
    IMAGE_SIZE,
    bare_oracle,
    classifying_oracle,
    config_of,
    saved,
)

TOLERANCE = 1e-5  # float32; the order of additions differs


def assert_same_features(
    backbone: Backbone,
    oracle: ViTModel,
    num_channels: int = 3,
    image_size: tuple[int, int] = IMAGE_SIZE,
) -> None:
    images = torch.randn(3, num_channels, *image_size)
    with torch.no_grad():
        features = backbone(images=images.permute(0, 2, 3, 1))
        expected = oracle(pixel_values=images).last_hidden_state
    torch.testing.assert_close(features, expected, atol=TOLERANCE, rtol=0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return saved(bare_oracle(), tmp_path)


def change_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("has_pooler", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qkv_bias": False},
        {"layer_norm_eps": 0.1},
        {"patch_size": (4, 3)},
        {"num_channels": 1},
        {"hidden_size": 10, "num_attention_heads": 5},
    ],
    ids=str,
)
def test_a_bare_model_gives_the_features_of_transformers(
    tmp_path: Path, has_pooler: bool, changes: dict[str, object]
) -> None:
    oracle = bare_oracle(has_pooler, **changes)

    backbone = Backbone.from_preset(saved(oracle, tmp_path))

    assert isinstance(backbone, ViTBackbone)
    assert_same_features(backbone, oracle, oracle.config.num_channels)


def test_the_base_model_at_its_published_size_gives_the_features_of_transformers(
    tmp_path: Path,
) -> None:
    oracle = ViTModel(ViTConfig()).eval()
    randomise(oracle, spread=WIDE_SPREAD)

    backbone = Backbone.from_preset(saved(oracle, tmp_path))

    assert_same_features(backbone, oracle, image_size=(224, 224))


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_a_classifier_gives_the_features_of_its_backbone(tmp_path: Path, qkv_bias: bool) -> None:
    oracle = classifying_oracle(qkv_bias=qkv_bias)

    backbone = Backbone.from_preset(saved(oracle, tmp_path))

    assert_same_features(backbone, oracle.vit)


def test_a_model_for_masked_images_gives_the_features_of_its_backbone(tmp_path: Path) -> None:
    oracle = ViTForMaskedImageModeling(config_of()).eval()
    randomise(oracle)
    oracle.save_pretrained(tmp_path)

    assert_same_features(Backbone.from_preset(tmp_path), oracle.vit)


def test_the_names_of_transformers_own_modules_are_read_too(tmp_path: Path) -> None:
    oracle = classifying_oracle()
    saved(oracle, tmp_path)
    save_file(oracle.state_dict(), tmp_path / "model.safetensors")

    assert "vit.layers.0.attention.q_proj.weight" in oracle.state_dict()
    assert_same_features(Backbone.from_preset(tmp_path), oracle.vit)


def test_shards_are_read(tmp_path: Path) -> None:
    oracle = bare_oracle()
    oracle.save_pretrained(tmp_path, max_shard_size="2KB")

    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_same_features(Backbone.from_preset(tmp_path), oracle)


def test_the_epsilon_is_carried_over(directory: Path) -> None:
    backbone = ViTBackbone.from_preset(directory)

    assert backbone.layer_norm_epsilon == 1e-12
    norms = [module for module in backbone.modules() if isinstance(module, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-12}


def test_a_model_without_qkv_bias_comes_back_the_same(tmp_path: Path) -> None:
    oracle = bare_oracle(qkv_bias=False)
    backbone = ViTBackbone.from_preset(saved(oracle, tmp_path / "theirs"))
    backbone.save_to_preset(tmp_path / "ours")

    again = ViTBackbone.from_preset(tmp_path / "ours")

    assert not again.get_parameter("encoder_layers.0.mha.query.bias").any()
    assert_same_features(again, oracle)


def test_a_pretrained_size_is_meant_where_the_file_is_silent(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')

    with torch.device("meta"):
        backbone = ViTBackbone.from_preset(tmp_path, load_weights=False)

    assert sum(parameter.numel() for parameter in backbone.parameters()) == 85_798_656


def test_another_activation_is_refused(directory: Path) -> None:
    change_config(directory, hidden_act="quick_gelu")

    with pytest.raises(PresetFileError, match=r"(?s)config\.json is malformed.*hidden_act.*gelu"):
        Backbone.from_preset(directory)


def test_an_image_that_the_patch_does_not_divide_is_refused(directory: Path) -> None:
    change_config(directory, image_size=[8, 13])

    with pytest.raises(PresetError, match="width 13 is not divisible by patch size 4"):
        Backbone.from_preset(directory)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_a_pickle_is_refused(directory: Path, name: str) -> None:
    shutil.move(directory / "model.safetensors", directory / name)

    with pytest.raises(PickleError, match=r"pytorch_model\.bin.*, a pickle"):
        Backbone.from_preset(directory)


def test_missing_weights_are_named(directory: Path) -> None:
    (directory / "model.safetensors").unlink()

    with pytest.raises(PresetFileError, match=r"model\.safetensors is missing"):
        Backbone.from_preset(directory)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("layernorm.weight", "missing: layernorm.weight"),
        ("encoder.layer.1.attention.attention.key.bias", "missing: encoder.layer.1.attention"),
    ],
)
def test_a_tensor_too_few_is_named(directory: Path, lost: str, message: str) -> None:
    state = load_file(directory / "model.safetensors")
    del state[lost]
    save_file(state, directory / "model.safetensors")

    with pytest.raises(WeightsError, match=message):
        Backbone.from_preset(directory)


def test_a_tensor_too_many_is_named(directory: Path) -> None:
    state = load_file(directory / "model.safetensors")
    save_file(state | {"segmentation.weight": torch.ones(1)}, directory / "model.safetensors")

    with pytest.raises(WeightsError, match=r"left over: segmentation\.weight"):
        Backbone.from_preset(directory)


def test_biases_that_the_configuration_denies_are_left_over(tmp_path: Path) -> None:
    saved(bare_oracle(), tmp_path)
    change_config(tmp_path, qkv_bias=False)

    with pytest.raises(WeightsError, match=r"left over: .*attention\.key\.bias"):
        Backbone.from_preset(tmp_path)
