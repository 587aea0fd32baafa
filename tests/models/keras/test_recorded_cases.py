"""Presets and adapters of KerasHub give KerasHub's numbers: every weight random, float32, CPU."""

import pytest
import torch

from tests.models.keras.recorded import Run, runs

# Two float32 libraries that add in another order; the mildest real mistake (another GELU) is 3e-4
TOLERANCE = 2e-5


@pytest.mark.parametrize("run", runs(), ids=str)
def test_a_recorded_case_gives_the_numbers_of_keras_hub(run: Run) -> None:
    got = run.outputs_of(run.load())
    assert got.keys() == run.outputs.keys()
    for name, expected in run.outputs.items():
        torch.testing.assert_close(got[name], expected, rtol=0, atol=TOLERANCE)
