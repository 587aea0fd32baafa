"""The benchmark of loading: measured in processes of their own, on small checkpoints."""

from pathlib import Path

import pytest

from benchmarks.loading import CASES, measure, measure_parts


def test_loading_is_measured_against_reading(tmp_path: Path) -> None:
    case = CASES["KerasHub H5, float32"]
    case.write(tmp_path, 0.01)

    measured = measure(case, tmp_path, repetitions=1)

    assert measured.file_gb == pytest.approx(0.083, abs=0.01)  # one layer of the 25
    assert measured.load_s > 0
    assert measured.read_s > 0
    assert 1.0 <= measured.peak_of_weights < 2.0


def test_the_parts_of_a_pipeline_are_dropped_in_turn() -> None:
    measured = measure_parts(scale=0.01, repetitions=1)

    assert measured.largest_part_gb < measured.file_gb
    assert measured.peak_of_largest_part >= 1.0
