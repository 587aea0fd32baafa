"""A short soak; `python -m tests.faults.soak` is a long one."""

from pathlib import Path

from tests.faults.soak import soak


def test_random_strikes_under_load_lose_nothing_that_was_accepted(tmp_path: Path) -> None:
    figures = soak(num_jobs=20, num_hosts=1, interval_s=0.5, seed=332, directory=tmp_path)
    assert figures.faults == []
    assert sum(figures.states.values()) >= 20
    assert any(what.startswith("kill") for what in figures.strikes)
