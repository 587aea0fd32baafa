"""Presets and adapters of KerasHub give KerasHub's numbers: every weight random, float32, CPU."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from models import Backbone
from models.preset_files import CONFIG_FILE
from tests.models.keras.recorded import Run, presets, runs

# Two float32 libraries that add in another order; the mildest real mistake (another GELU) is 3e-4.
# Flux's recordings lie up to 1.0e-4 from what float64 gives, ours up to 1.0e-5: how near the two
# come depends on the processor's order of sums.
TOLERANCE, FLUX_TOLERANCE = 2e-5, 1.5e-4


@pytest.mark.parametrize("run", runs(), ids=str)
def test_a_recorded_case_gives_the_numbers_of_keras_hub(run: Run) -> None:
    got = run.outputs_of(run.load())
    assert got.keys() == run.outputs.keys()
    tolerance = FLUX_TOLERANCE if str(run).startswith("flux") else TOLERANCE
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
