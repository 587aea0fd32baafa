"""The benchmark of loading: measured in processes of their own, on small checkpoints."""

import pytest

from benchmarks.loading import CASES, report


def test_loading_is_measured_against_reading() -> None:
    name = "KerasHub H5, float32"

    measured = report({name: CASES[name]}, scale=0.01, repetitions=1).formats[name]

    assert measured.file_gb == pytest.approx(0.083, abs=0.01)  # one layer of the 25
    assert measured.load_s > 0
    assert measured.read_s > 0
    assert 1.0 <= measured.peak_of_weights < 2.0
