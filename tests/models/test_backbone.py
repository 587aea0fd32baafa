"""Backbone: presets by name and directory, strictness, saving."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import Backbone, FNetBackbone, ViTBackbone
from models.backbone import WeightsFormat
from models.errors import PresetError, PresetFileError, UnknownPresetError, WeightsError
from tests.models.random_weights import randomise


@pytest.fixture
def backbone() -> FNetBackbone:
    backbone = FNetBackbone(20, 1, 8, 12, max_sequence_length=16)
    randomise(backbone)
    return backbone.eval()


@pytest.fixture
def preset(backbone: FNetBackbone, tmp_path: Path) -> Path:
    backbone.save_to_preset(tmp_path / "preset", weights_format="safetensors")
    return tmp_path / "preset"


def change_weights(preset: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Replace one tensor of the file, or drop it."""
    weights = load_file(preset / "model.safetensors")
    weights.pop(name, None)
    save_file(weights | ({} if tensor is None else {name: tensor}), preset / "model.safetensors")


def test_what_was_saved_comes_back(backbone: FNetBackbone, preset: Path) -> None:
    loaded = Backbone.from_preset(preset)

    assert isinstance(loaded, FNetBackbone)
    assert loaded.get_config() == backbone.get_config()
    assert not loaded.training
    torch.testing.assert_close(loaded.state_dict(), backbone.state_dict(), atol=0, rtol=0)


def test_a_directory_may_be_given_as_a_string(preset: Path) -> None:
    assert FNetBackbone.from_preset(str(preset)).num_layers == 1


def test_the_configuration_has_kerashubs_form(preset: Path) -> None:
    config = json.loads((preset / "config.json").read_text())

    assert config["registered_name"] == "keras_hub>FNetBackbone"
    assert config["config"]["name"] == "f_net_backbone"
    assert config["config"]["dtype"]["config"] == {"name": "float32"}
    assert config["config"]["intermediate_dim"] == 12
    assert json.loads((preset / "metadata.json").read_text())["parameter_count"] == 724


def test_saving_leaves_other_files_alone(backbone: FNetBackbone, preset: Path) -> None:
    (preset / "README.md").write_text("mine")

    backbone.save_to_preset(preset, weights_format="safetensors")

    assert (preset / "README.md").read_text() == "mine"
    assert sorted(path.name for path in preset.iterdir()) == [
        "README.md",
        "config.json",
        "metadata.json",
        "model.safetensors",
    ]


def test_a_configuration_of_keras_nlp_is_read(preset: Path) -> None:
    config = json.loads((preset / "config.json").read_text())
    config |= {"registered_name": "keras_nlp>FNetBackbone", "module": "keras_nlp.src", "assets": []}
    (preset / "config.json").write_text(json.dumps(config))

    assert isinstance(Backbone.from_preset(preset), FNetBackbone)


def test_an_override_replaces_an_argument_of_the_constructor(preset: Path) -> None:
    assert FNetBackbone.from_preset(preset, dropout=0.5).get_config()["dropout"] == 0.5


def test_an_unknown_override_is_refused(preset: Path) -> None:
    with pytest.raises(PresetError, match="depth"):
        FNetBackbone.from_preset(preset, depth=3)


def test_without_weights_the_values_are_fresh(preset: Path) -> None:
    (preset / "model.safetensors").unlink()

    fresh = FNetBackbone.from_preset(preset, load_weights=False)

    assert fresh.pooled_dense.weight.abs().max() > 0


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_the_dtype_may_be_chosen(preset: Path, dtype: torch.dtype | str) -> None:
    loaded = FNetBackbone.from_preset(preset, dtype=dtype)

    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_weights_of_half_precision_come_back_as_float32(
    backbone: FNetBackbone, preset: Path
) -> None:
    backbone.half().save_to_preset(preset, weights_format="safetensors")

    assert FNetBackbone.from_preset(preset).pooled_dense.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "FLOAT32", {"config": {}}, 5])
def test_a_dtype_that_layers_do_not_compute_in_is_refused(preset: Path, dtype: object) -> None:
    with pytest.raises(ValueError, match="is not one of float16, bfloat16, float32, float64"):
        FNetBackbone.from_preset(preset, dtype=dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights_format", ["h5", "safetensors"])
@pytest.mark.parametrize("max_shard_size", [0, -1, float("nan")])
def test_a_size_of_shards_that_is_none_is_refused_and_changes_nothing(
    backbone: FNetBackbone,
    tmp_path: Path,
    weights_format: WeightsFormat,
    max_shard_size: float,
) -> None:
    with pytest.raises(ValueError, match="more than 0 GB, or None"):
        backbone.save_to_preset(tmp_path, max_shard_size, weights_format)
    assert not list(tmp_path.iterdir())


def test_a_backbone_without_weights_is_not_saved(tmp_path: Path) -> None:
    with torch.device("meta"):
        backbone = ViTBackbone.from_preset("vit_shapes", load_weights=False)

    with pytest.raises(ValueError, match="ViTBackbone is on the meta device"):
        backbone.save_to_preset(tmp_path)


def test_threads_may_save_to_one_directory(backbone: FNetBackbone, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: backbone.save_to_preset(tmp_path), range(8)))

    assert FNetBackbone.from_preset(tmp_path).state_dict().keys() == backbone.state_dict().keys()


@pytest.mark.parametrize("is_trainable", [True, False])
def test_weights_train_or_not_as_asked(preset: Path, is_trainable: bool) -> None:
    loaded = FNetBackbone.from_preset(preset, trainable=is_trainable)

    assert {parameter.requires_grad for parameter in loaded.parameters()} == {is_trainable}


def test_a_preset_of_another_family_is_refused(preset: Path) -> None:
    with pytest.raises(PresetError, match="holds a FNetBackbone, which is not a ViTBackbone"):
        ViTBackbone.from_preset(preset)


def test_a_class_that_is_no_backbone_of_ours_is_refused(preset: Path) -> None:
    registered = {"registered_name": "keras_hub>BertBackbone"}
    config = json.loads((preset / "config.json").read_text()) | registered
    (preset / "config.json").write_text(json.dumps(config))

    with pytest.raises(PresetError, match="BertBackbone, not one of FNetBackbone, FluxBackbone"):
        Backbone.from_preset(preset)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownPresetError, match=r"(?s)'vit_bricks' is unknown.*vit_shapes"):
        Backbone.from_preset("vit_bricks")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(preset: Path, name: str) -> None:
    (preset / name).unlink()

    with pytest.raises(PresetFileError, match=f"{name} is missing"):
        Backbone.from_preset(preset)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_named(preset: Path, name: str) -> None:
    (preset / name).write_bytes(b"\x80 no such thing")

    with pytest.raises(PresetFileError, match=name):
        Backbone.from_preset(preset)


def test_a_missing_tensor_is_named(preset: Path) -> None:
    change_weights(preset, "pooled_dense.bias", None)

    with pytest.raises(WeightsError, match=r"missing: pooled_dense\.bias"):
        Backbone.from_preset(preset)


def test_a_tensor_too_many_is_named(preset: Path) -> None:
    change_weights(preset, "surprise", torch.zeros(1))

    with pytest.raises(WeightsError, match="left over: surprise"):
        Backbone.from_preset(preset)


def test_a_tensor_of_a_wrong_shape_is_named(preset: Path) -> None:
    change_weights(preset, "pooled_dense.bias", torch.zeros(9))

    with pytest.raises(WeightsError, match=r"pooled_dense\.bias is \[9\], for \[8\]"):
        Backbone.from_preset(preset)


def test_the_form_of_the_weights_may_be_chosen_again(backbone: FNetBackbone, preset: Path) -> None:
    for number, weights_format in enumerate(("h5", "safetensors", "h5")):
        randomise(backbone, seed=number)
        backbone.save_to_preset(preset, weights_format=weights_format)  # type: ignore[arg-type]

        loaded = Backbone.from_preset(preset)

        torch.testing.assert_close(loaded.state_dict(), backbone.state_dict(), atol=0, rtol=0)


def test_an_unknown_form_of_the_weights_is_refused(backbone: FNetBackbone, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights_format 'pickle' is not h5 or safetensors"):
        backbone.save_to_preset(tmp_path, weights_format="pickle")  # type: ignore[arg-type]


def test_safetensors_are_split_where_one_file_would_be_too_large(
    backbone: FNetBackbone, tmp_path: Path
) -> None:
    backbone.save_to_preset(tmp_path, max_shard_size=1e-6, weights_format="safetensors")

    names = {file.name for file in tmp_path.glob("*.safetensors")}
    assert len(names) > 1
    assert "model.safetensors" not in names
    loaded = Backbone.from_preset(tmp_path)
    torch.testing.assert_close(loaded.state_dict(), backbone.state_dict(), atol=0, rtol=0)


def test_one_file_takes_the_place_of_several(backbone: FNetBackbone, tmp_path: Path) -> None:
    backbone.save_to_preset(tmp_path, max_shard_size=1e-6, weights_format="safetensors")
    randomise(backbone, seed=9)

    backbone.save_to_preset(tmp_path, max_shard_size=None, weights_format="safetensors")

    loaded = Backbone.from_preset(tmp_path)
    torch.testing.assert_close(loaded.state_dict(), backbone.state_dict(), atol=0, rtol=0)


def test_loading_does_not_import_the_compiler() -> None:
    cases = Path(__file__).parent / "keras" / "cases"
    presets = [cases / case / "preset" for case in ("vit_cls", "fnet_base", "flux_plain")]
    program = (
        "import sys; from models import Backbone; "
        "[Backbone.from_preset(preset) for preset in sys.argv[1:]]; "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, *presets], check=False).returncode == 0
