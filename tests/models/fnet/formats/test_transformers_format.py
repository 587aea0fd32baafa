"""FNet directories that transformers wrote, against what transformers computes from them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    FNetConfig,
    FNetForMaskedLM,
    FNetForPreTraining,
    FNetForSequenceClassification,
    FNetModel,
    PreTrainedModel,
)

from models import Backbone, FNetBackbone
from models.errors import PickleError, PresetFileError, WeightsError
from tests.models.random_weights import WIDE_SPREAD, randomise

TOLERANCE = 1e-5  # float32; the order of additions differs
HEADS = [FNetForMaskedLM, FNetForSequenceClassification, FNetForPreTraining]
CONFIG = FNetConfig(
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=3,
    intermediate_size=12,
    max_position_embeddings=16,
    type_vocab_size=3,
    hidden_dropout_prob=0.2,
)


def saved(model_class: type[PreTrainedModel], directory: Path) -> FNetModel:
    """Write a model of random weights, and give its encoder."""
    model = model_class(CONFIG).eval()
    randomise(model, seed=1)
    model.save_pretrained(directory)
    return getattr(model, "fnet", model)


def change_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_weights(directory: Path, added: dict[str, torch.Tensor], *dropped: str) -> None:
    file = directory / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if name not in dropped}
    save_file(kept | added, file)


def assert_equals(backbone: Backbone, oracle: FNetModel, length: int = 11) -> None:
    generator = torch.Generator().manual_seed(0)
    size, segments = oracle.config.vocab_size, oracle.config.type_vocab_size
    token_ids = torch.randint(0, size, (3, length), generator=generator)
    segment_ids = torch.randint(0, segments, (3, length), generator=generator)
    with torch.no_grad():
        ours = backbone(token_ids=token_ids, segment_ids=segment_ids)
        theirs = oracle(input_ids=token_ids, token_type_ids=segment_ids)
    expected = {
        "sequence_output": theirs.last_hidden_state,
        "pooled_output": theirs.pooler_output,
    }
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("model_class", [FNetModel, *HEADS])
def test_outputs_equal_those_of_transformers_bare_and_below_any_head(
    model_class: type[PreTrainedModel], tmp_path: Path
) -> None:
    oracle = saved(model_class, tmp_path)

    backbone = Backbone.from_preset(tmp_path)

    assert isinstance(backbone, FNetBackbone)
    assert_equals(backbone, oracle)


def test_the_base_model_at_its_published_size_equals_that_of_transformers(tmp_path: Path) -> None:
    oracle = FNetModel(FNetConfig()).eval()
    randomise(oracle, spread=WIDE_SPREAD)
    oracle.save_pretrained(tmp_path)

    assert_equals(Backbone.from_preset(tmp_path), oracle, length=512)


def test_the_configuration_is_carried_over(tmp_path: Path) -> None:
    saved(FNetModel, tmp_path)

    backbone = FNetBackbone.from_preset(tmp_path, load_weights=False)

    assert backbone.get_config() | {"name": "", "dtype": ""} == {
        "name": "",
        "trainable": True,
        "dtype": "",
        "vocabulary_size": 20,
        "num_layers": 3,
        "hidden_dim": 8,
        "intermediate_dim": 12,
        "dropout": 0.2,
        "max_sequence_length": 16,
        "num_segments": 3,
    }


def test_layers_of_two_digits_are_told_apart(tmp_path: Path) -> None:
    config = FNetConfig(vocab_size=5, hidden_size=4, num_hidden_layers=11, intermediate_size=4)
    oracle = FNetModel(config)
    randomise(oracle)
    oracle.save_pretrained(tmp_path)

    ours = FNetBackbone.from_preset(tmp_path).state_dict()

    theirs = oracle.state_dict()
    for layer in range(11):
        weight = ours[f"encoder_layers.{layer}.output_dense.weight"]
        assert torch.equal(weight, theirs[f"encoder.layer.{layer}.output.dense.weight"])


def test_shards_are_read_as_one_file(tmp_path: Path) -> None:
    oracle = saved(FNetModel, tmp_path / "whole")
    oracle.save_pretrained(tmp_path, max_shard_size="4KB")

    backbone = Backbone.from_preset(tmp_path)

    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_equals(backbone, oracle)


def test_buffers_that_older_versions_stored_are_not_left_over(tmp_path: Path) -> None:
    oracle = saved(FNetForMaskedLM, tmp_path)
    buffers = {
        "fnet.embeddings.position_ids": torch.arange(16)[None],
        "fnet.encoder.layer.0.fourier.self.dft_mat_hidden": torch.zeros(
            8, 8, dtype=torch.complex64
        ),
    }
    change_weights(tmp_path, buffers)

    assert_equals(Backbone.from_preset(tmp_path), oracle)


@pytest.mark.parametrize("spelling", ["gelu_pytorch_tanh", "gelu_fast"])
def test_other_spellings_of_the_tanh_gelu_are_the_same(spelling: str, tmp_path: Path) -> None:
    saved(FNetModel, tmp_path)
    change_config(tmp_path, hidden_act=spelling)
    oracle = FNetModel.from_pretrained(tmp_path).eval()

    assert_equals(Backbone.from_preset(tmp_path), oracle)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("hidden_act", "gelu", "gelu_new, gelu_pytorch_tanh, gelu_fast are allowed"),
        ("layer_norm_eps", 1e-5, "only 1e-12 is allowed"),
    ],
)
def test_what_the_backbone_does_not_compute_is_refused(
    key: str, value: object, allowed: str, tmp_path: Path
) -> None:
    saved(FNetModel, tmp_path)
    change_config(tmp_path, **{key: value})

    with pytest.raises(PresetFileError, match=f"{key} is .*{value}.*{allowed}"):
        Backbone.from_preset(tmp_path)


def test_a_model_without_a_pooler_is_refused_by_name(tmp_path: Path) -> None:
    FNetModel(CONFIG, add_pooling_layer=False).save_pretrained(tmp_path)

    with pytest.raises(WeightsError, match=r"missing: pooler\.dense\.bias, pooler\.dense\.weight"):
        Backbone.from_preset(tmp_path)


def test_a_tensor_that_belongs_to_nothing_is_named(tmp_path: Path) -> None:
    saved(FNetForMaskedLM, tmp_path)
    change_weights(tmp_path, {"fnet.encoder.layer.3.output.dense.bias": torch.zeros(8)})

    with pytest.raises(WeightsError, match=r"left over: fnet\.encoder\.layer\.3\.output"):
        Backbone.from_preset(tmp_path)


def test_a_pickle_alone_is_refused(tmp_path: Path) -> None:
    saved(FNetModel, tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")

    with pytest.raises(PickleError, match=r"pytorch_model\.bin, a pickle, .* is not read"):
        Backbone.from_preset(tmp_path)
