"""Presets and adapters of KerasHub give KerasHub's numbers: every weight random, float32, CPU."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from models import Backbone
from models.checkpoints.preset_files import CONFIG_FILE
from tests.models.keras.recorded import Run, presets, runs

# Two float32 libraries that add in another order; the mildest real mistake (another GELU) is 3e-4
TOLERANCE = 2e-5
# How far KerasHub's float32 lies from float64 (ours: 1.0e-5 at most). Whether the two roundings
# meet within TOLERANCE would depend on the processor's order of sums.
ROUNDING = {
    "flux_guidance_bias-outputs": 1.6e-5,
    "flux_lora-outputs": 1.6e-5,
    "flux_lora-outputs_lora": 2.0e-5,
    "flux_lora_modulation_sharded-outputs_lora": 1.5e-5,
    "flux_odd_heads_bfloat16-outputs": 1.0e-4,
    "flux_single_only-outputs": 3.1e-5,
    "flux_single_only_plain-outputs": 1.9e-5,
}


@pytest.mark.parametrize("run", runs(), ids=str)
def test_a_recorded_case_gives_the_numbers_of_keras_hub(run: Run) -> None:
    got = run.outputs_of(run.load())
    assert got.keys() == run.outputs.keys()
    tolerance = TOLERANCE + ROUNDING.get(str(run), 0.0)
    for name, expected in run.outputs.items():
        torch.testing.assert_close(got[name], expected, rtol=0, atol=tolerance)


def test_a_vit_configuration_of_keras_hub_0_19_is_read(tmp_path: Path) -> None:
    run = next(run for run in presets() if run.preset.parent.name == "vit_cls")
    preset = Path(shutil.copytree(run.preset, tmp_path / "preset"))
    written = json.loads((preset / CONFIG_FILE).read_text())
    config = written["config"]
    config["patch_size"] = config["patch_size"][0]
    for younger in ("use_class_token", "use_patch_bias", "dtype"):
        del config[younger]
    (preset / CONFIG_FILE).write_text(json.dumps(written))
    got = run.outputs_of(Backbone.from_preset(preset))["output"]
    torch.testing.assert_close(got, run.outputs["output"], rtol=0, atol=TOLERANCE)
