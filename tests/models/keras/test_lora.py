"""KerasHub's LoRA: adapters that it recorded, its file format, its errors and those it has not."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import Backbone, FNetBackbone, ViTBackbone
from models.errors import PresetFileError, WeightsError
from models.layers.adapters import Adapter, adaptable_layers
from tests.models.keras.lora_backbones import fnet, targets, vit
from tests.models.keras.recorded import CASES, Run, arrays, runs
from tests.models.random_weights import randomise

KERAS_TOLERANCE = 2e-5  # two float32 libraries that add in another order
MERGED_TOLERANCE = 1e-5  # one library, another order
RECORDED = [run for run in runs() if run.lora is not None]


def predict(backbone: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Give the output, or all outputs of an FNet as one."""
    with torch.inference_mode():
        output = backbone(**inputs)
    if isinstance(output, dict):
        return torch.cat([tensor.flatten() for tensor in output.values()])
    assert isinstance(output, Tensor)
    return output


def load(run: Run) -> Backbone:
    backbone = Backbone.from_preset(run.preset)
    assert run.lora is not None
    backbone.load_lora_weights(run.lora)
    return backbone


def datasets(file: Path) -> dict[str, np.ndarray]:
    """Give the bytes of every dataset, with its dtype and shape."""
    found: dict[str, np.ndarray] = {}

    def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(file) as opened:
        opened.visititems(note)
    return found


def assert_same_file(got: Path, wanted: Path, rtol: float) -> None:
    ours, theirs = datasets(got), datasets(wanted)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape)
        np.testing.assert_allclose(ours[name], array, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("run", RECORDED, ids=str)
def test_saving_what_keras_hub_saved_gives_its_file_again(run: Run, tmp_path: Path) -> None:
    load(run).save_lora_weights(tmp_path / "again.lora.h5")
    assert run.lora is not None
    # dividing by a folded norm's gamma rounds; nothing else may differ in one bit
    is_folded = "modulation" in run.name
    assert_same_file(tmp_path / "again.lora.h5", run.lora, rtol=1e-5 if is_folded else 0)


@pytest.mark.parametrize("run", RECORDED, ids=str)
def test_a_preset_saved_with_lora_on_loads_as_a_plain_one(run: Run, tmp_path: Path) -> None:
    backbone = load(run)
    backbone.save_to_preset(tmp_path)
    plain = Backbone.from_preset(tmp_path)
    assert not any(layer.is_adapted for layer in adaptable_layers(plain).values())
    wanted = predict(backbone, run.inputs)
    torch.testing.assert_close(predict(plain, run.inputs), wanted, rtol=0, atol=MERGED_TOLERANCE)


def test_the_preset_that_keras_hub_merged_equals_ours() -> None:
    run = next(run for run in RECORDED if run.name.startswith("vit_lora-"))
    inputs = arrays(CASES / "vit_lora" / "inputs_merged.npz")
    theirs = Backbone.from_preset(CASES / "vit_lora" / "merged_preset")
    wanted = predict(theirs, inputs)
    torch.testing.assert_close(predict(load(run), inputs), wanted, rtol=0, atol=KERAS_TOLERANCE)


def test_the_token_embedding_in_reverse_has_its_adapter() -> None:
    run = next(run for run in RECORDED if run.name == "fnet_lora_dense-outputs_embeddings")
    backbone = load(run)
    assert isinstance(backbone, FNetBackbone)
    with torch.inference_mode():
        features = backbone(**run.inputs)["sequence_output"]
        got = backbone.token_embedding(features, reverse=True)
    wanted = arrays(CASES / "fnet_lora_dense" / "reversed_embeddings.npz")["scores"]
    torch.testing.assert_close(got, wanted, rtol=0, atol=KERAS_TOLERANCE)


def test_saving_needs_lora_and_its_ending(tmp_path: Path) -> None:
    backbone = vit()
    with pytest.raises(ValueError, match="There are no lora-enabled layers in this model"):
        backbone.save_lora_weights(tmp_path / "adapter.lora.h5")
    backbone.enable_lora(2)
    with pytest.raises(ValueError, match=r"The filename must end in `\.lora\.h5`"):
        backbone.save_lora_weights(tmp_path / "adapter.h5")


def trained(names: list[str] | None = None, rank: int = 2) -> ViTBackbone:
    backbone = vit()
    backbone.enable_lora(rank, names)
    for adapter in backbone.modules():
        if isinstance(adapter, Adapter):
            randomise(adapter, seed=3)
    return backbone


def test_saved_adapters_load_into_enabled_layers_in_place(tmp_path: Path) -> None:
    source, target, images = trained(), vit(), {"images": torch.randn(2, 8, 8, 3)}
    source.save_lora_weights(tmp_path / "adapter.lora.h5")
    target.enable_lora(2)
    before = list(target.parameters())
    target.load_lora_weights(tmp_path / "adapter.lora.h5")
    assert all(old is new for old, new in zip(before, target.parameters(), strict=True))
    assert torch.equal(predict(target, images), predict(source, images))


def test_a_file_enables_the_layers_that_it_names(tmp_path: Path) -> None:
    source, target = trained(["key", "dense_2"]), vit()
    source.save_lora_weights(tmp_path / "adapter.lora.h5")
    target.load_lora_weights(str(tmp_path / "adapter.lora.h5"))
    assert targets(target) == targets(source)
    trainable = [name for name, each in target.named_parameters() if each.requires_grad]
    assert trainable == [name for name, each in source.named_parameters() if each.requires_grad]


def test_another_rank_is_refused_as_by_keras_hub(tmp_path: Path) -> None:
    file = tmp_path / "adapter.lora.h5"
    trained().save_lora_weights(file)
    with pytest.raises(ValueError, match=r"rank=2, but .*enable_lora\(rank=4\).*Both ranks must"):
        trained(rank=4).load_lora_weights(file)


def test_layers_of_a_file_must_be_those_that_are_enabled(tmp_path: Path) -> None:
    file = tmp_path / "adapter.lora.h5"
    trained(["query"]).save_lora_weights(file)
    with pytest.raises(WeightsError, match=r"missing layers: 12, 23$"):
        trained(["query", "value"]).load_lora_weights(file)
    with pytest.raises(WeightsError, match=r"layers that take no adapter: 14, 25$"):
        trained(["key"]).load_lora_weights(file)


def test_a_file_of_another_backbone_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "adapter.lora.h5"
    trained().save_lora_weights(file)
    backbone = fnet()
    with pytest.raises(
        WeightsError, match=r"take no adapter: 14, 23, 25; adapters of a wrong form: layer"
    ):
        backbone.load_lora_weights(file)
    assert targets(backbone) == []
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"lora/12/vars/lora_kernel_a": np.zeros((8, 2, 2))}, "it has no lora/vars/rank"),
        ({"lora/vars/rank": 2}, "holds no adapters"),
        ({"lora/vars/rank": 2.5}, "lora/vars/rank is not one integer"),
        ({"lora/vars/rank": 2, "lora/x/vars/a": 1}, "lora/x is not a layer's position"),
        (
            {"lora/vars/rank": 2, "lora/12/vars/lora_kernel_a": np.zeros((8, 2, 2))},
            "lora/12/vars holds lora_kernel_a; lora_kernel_a and lora_kernel_b, or",
        ),
        (
            {
                "lora/vars/rank": 2,
                "lora/12/vars/lora_kernel_a": np.zeros((8, 2, 2), "i4"),
                "lora/12/vars/lora_kernel_b": np.zeros((2, 4)),
            },
            "lora_kernel_a is int32, not a floating dtype",
        ),
    ],
)
def test_a_malformed_file_is_named(
    stored: dict[str, np.ndarray | float], said: str, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "adapter.lora.h5", "w") as file:
        for name, value in stored.items():
            file[name] = value
    with pytest.raises((PresetFileError, WeightsError), match=said):
        vit().load_lora_weights(tmp_path / "adapter.lora.h5")


def test_a_missing_file_and_one_that_is_no_hdf5_are_named(tmp_path: Path) -> None:
    with pytest.raises(PresetFileError, match=r"adapter\.lora\.h5 is missing"):
        vit().load_lora_weights(tmp_path / "adapter.lora.h5")
    (tmp_path / "adapter.lora.h5").write_bytes(b"no")
    with pytest.raises(PresetFileError, match="cannot be read"):
        vit().load_lora_weights(tmp_path / "adapter.lora.h5")


def test_an_adapter_in_another_file_is_not_followed(tmp_path: Path) -> None:
    file, other = tmp_path / "adapter.lora.h5", tmp_path / "other.lora.h5"
    trained().save_lora_weights(file)
    trained().save_lora_weights(other)
    with h5py.File(file, "r+") as adapters:
        position = next(name for name in adapters["lora"] if name != "vars")
        del adapters[f"lora/{position}"]
        adapters[f"lora/{position}"] = h5py.ExternalLink(str(other), f"lora/{position}")

    with pytest.raises(PresetFileError, match="is not an array in this file"):
        vit().load_lora_weights(file)
