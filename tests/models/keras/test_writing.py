"""What we save against what KerasHub saved: the same datasets with the same values."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import h5py
import pytest
import torch
from torch import Tensor

from models import Backbone, FluxBackbone
from models.checkpoints.preset_files import (
    CONFIG_FILE,
    KERAS_INDEX_FILE,
    KERAS_WEIGHTS_FILE,
    METADATA_FILE,
)
from models.checkpoints.safetensors_files import save_safetensors
from models.keras import weights as keras_weights
from models.keras.files import KerasFiles
from models.keras.writing import GIB
from tests.models.keras.recorded import CASES, Run, presets, runs

ROUNDING = 1e-5  # of folding and unfolding

each_preset = pytest.mark.parametrize("run", presets(), ids=str)


@pytest.fixture
def vit() -> Backbone:
    return Backbone.from_preset(CASES / "vit_cls" / "preset")


def smallest_shards(backbone: Backbone) -> float:
    """Give the limit, in GB, that the largest variable just meets."""
    return max(each.nbytes for each in backbone.parameters()) / GIB


def read_all(directory: Path) -> dict[str, Tensor]:
    with KerasFiles.in_directory(directory) as weights:
        names = [each for each in weights.shapes if not keras_weights.is_not_a_weight(each)]
        return {name: weights.read(name) for name in names}


@each_preset
def test_saving_gives_the_datasets_that_were_loaded(run: Run, tmp_path: Path) -> None:
    Backbone.from_preset(run.preset).save_to_preset(tmp_path)
    loaded, saved = read_all(run.preset), read_all(tmp_path)
    assert saved.keys() == loaded.keys()
    for name, tensor in loaded.items():
        torch.testing.assert_close(saved[name], tensor.float(), rtol=0, atol=ROUNDING)


@each_preset
def test_configuration_and_metadata_are_those_of_keras_hub(run: Run, tmp_path: Path) -> None:
    Backbone.from_preset(run.preset).save_to_preset(tmp_path)
    recorded, saved = (_read_json(preset) for preset in (run.preset, tmp_path))
    if run.preset.parent.name.startswith("legacy"):  # there, less was written
        assert saved.metadata["parameter_count"] == recorded.metadata["parameter_count"]
    else:
        assert saved == recorded


@dataclass(frozen=True, slots=True)
class Files:
    config: dict[str, object]
    metadata: dict[str, object]


def _read_json(preset: Path) -> Files:
    """Read the JSON files of a preset, without the dtype, which loading forgets, and the date."""
    config, metadata = (
        json.loads((preset / name).read_text()) for name in (CONFIG_FILE, METADATA_FILE)
    )
    config["config"].pop("dtype", None)
    del metadata["date_saved"]
    return Files(config, metadata)


@each_preset
def test_a_saved_preset_gives_the_same_weights(run: Run, tmp_path: Path) -> None:
    backbone = Backbone.from_preset(run.preset)
    backbone.save_to_preset(tmp_path, smallest_shards(backbone))
    assert (tmp_path / KERAS_INDEX_FILE).is_file()
    again = Backbone.from_preset(tmp_path)
    for name, tensor in backbone.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_stored_as_keras_stores_it(
    vit: Backbone, dtype: torch.dtype, tmp_path: Path
) -> None:
    vit.to(dtype).save_to_preset(tmp_path)
    stored = read_all(tmp_path)
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    again = Backbone.from_preset(tmp_path, dtype=dtype).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in vit.state_dict().items())


def test_groups_bear_the_names_of_their_layers(vit: Backbone, tmp_path: Path) -> None:
    vit.save_to_preset(tmp_path)
    recorded = CASES / "vit_cls" / "preset" / KERAS_WEIGHTS_FILE
    with h5py.File(tmp_path / KERAS_WEIGHTS_FILE) as saved, h5py.File(recorded) as expected:
        block = "layers/vi_t_encoder/encoder_layers/vi_t_encoder_block"
        for path in ("layers/vi_t_encoder", block, f"{block}/mha", f"{block}/mha/query_dense"):
            assert dict(saved[f"{path}/vars"].attrs) == dict(expected[f"{path}/vars"].attrs)


def test_shards_are_no_larger_than_allowed(vit: Backbone, tmp_path: Path) -> None:
    vit.save_to_preset(tmp_path, smallest_shards(vit))
    shards = sorted(tmp_path.glob("model_*"))
    names = [f"model_{index:05d}.weights.h5" for index in range(len(shards))]
    assert [shard.name for shard in shards] == names
    assert len(shards) > 1
    for shard in shards:
        with KerasFiles(shard, {shard: None}) as weights:
            num_bytes = sum(4 * math.prod(shape) for shape in weights.shapes.values())
        assert num_bytes <= smallest_shards(vit) * GIB


def test_shards_replace_a_whole_file_that_would_win_over_them(
    vit: Backbone, tmp_path: Path
) -> None:
    vit.save_to_preset(tmp_path)
    with torch.no_grad():
        next(vit.parameters()).add_(1)
    vit.save_to_preset(tmp_path, smallest_shards(vit))
    again = Backbone.from_preset(tmp_path)
    assert torch.equal(next(again.parameters()), next(vit.parameters()))


def test_a_variable_larger_than_a_shard_is_refused_and_changes_nothing(
    vit: Backbone, tmp_path: Path
) -> None:
    vit.save_to_preset(tmp_path)
    before = (tmp_path / KERAS_WEIGHTS_FILE).read_bytes()
    with pytest.raises(ValueError, match="max_shard_size 1e-07 GB must be no less"):
        vit.save_to_preset(tmp_path, 1e-7)
    assert (tmp_path / KERAS_WEIGHTS_FILE).read_bytes() == before
    assert not list(tmp_path.glob(".*")) + list(tmp_path.glob("model_*"))


def test_adapters_are_saved_as_part_of_the_weights(tmp_path: Path) -> None:
    case = CASES / "vit_lora"
    backbone = Backbone.from_preset(case / "preset")
    backbone.load_lora_weights(case / "adapter.lora.h5")
    backbone.save_to_preset(tmp_path)
    merged = read_all(case / "merged_preset")
    for name, tensor in read_all(tmp_path).items():
        torch.testing.assert_close(tensor, merged[name], rtol=0, atol=1e-6)


def test_an_adapter_still_fits_a_flux_preset_that_was_saved_again(tmp_path: Path) -> None:
    run = next(run for run in runs() if run.name == "flux_lora_modulation_sharded-outputs_lora")
    Backbone.from_preset(run.preset).save_to_preset(tmp_path)
    backbone = Backbone.from_preset(tmp_path)
    assert run.lora is not None
    backbone.load_lora_weights(run.lora)
    output = run.outputs_of(backbone)["output"]
    torch.testing.assert_close(output, run.outputs["output"], rtol=0, atol=2e-5)


def test_a_flux_without_norms_of_its_own_is_saved_with_neutral_ones(tmp_path: Path) -> None:
    backbone = FluxBackbone.from_preset(CASES / "flux_plain" / "preset")
    save_safetensors(backbone.state_dict(), tmp_path / "model.safetensors")
    fresh = FluxBackbone.from_config(backbone.get_config())
    fresh.save_to_preset(tmp_path)
    stored = read_all(tmp_path)
    norms = [name for name in stored if "layer_normalization" in name or "_norm1" in name]
    assert norms
    for name in norms:
        assert bool((stored[name] == (1.0 if name.endswith("/0") else 0.0)).all())
    again = FluxBackbone.from_preset(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in fresh.state_dict().items())


def test_a_dtype_that_keras_lacks_is_refused(vit: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float8_e4m3fn"):
        vit.to(torch.float8_e4m3fn).save_to_preset(tmp_path)
