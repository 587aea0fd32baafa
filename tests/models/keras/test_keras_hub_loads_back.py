"""KerasHub itself loads what we save; skipped where it is not installed.

    pip install "triptych[keras]"

or name a Python that has it in KERAS_HUB_PYTHON.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import Backbone
from tests.models.keras.recorded import arrays, presets
from tests.models.keras.test_recorded_cases import TOLERANCE

PYTHON = os.environ.get("KERAS_HUB_PYTHON") or (
    sys.executable if importlib.util.find_spec("keras_hub") else None
)
LARGE, SMALL = 10, 2e-5  # GB: one file, and shards of 21 kB

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="keras-hub is not installed"),
]


@pytest.mark.parametrize("max_shard_size", [LARGE, SMALL], ids=["whole", "sharded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_keras_hub_gives_our_numbers_from_what_we_save(
    max_shard_size: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    arguments: list[str | Path] = []
    for run in presets():
        backbone = Backbone.from_preset(run.preset, dtype=dtype)
        backbone.save_to_preset(tmp_path / run.name, max_shard_size)
        arguments += [tmp_path / run.name, run.inputs_file, tmp_path / f"{run.name}.npz"]
    _run_keras_hub(arguments)
    for run in presets():
        ours = run.outputs_of(Backbone.from_preset(tmp_path / run.name))
        for name, expected in arrays(tmp_path / f"{run.name}.npz").items():
            torch.testing.assert_close(ours[name], expected, rtol=0, atol=TOLERANCE)


def _run_keras_hub(arguments: list[str | Path]) -> None:
    assert PYTHON is not None, "skipped without"
    program = Path(__file__).with_name("run_keras_hub.py")
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    done = subprocess.run(
        [PYTHON, program, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
