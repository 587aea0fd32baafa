"""A short run of `fuzz.py`, whose long one is by hand: `python -m tests.openapi.fuzz`."""

import pytest

from tests.openapi.fuzz import fuzz

# The phase of its own that tries each limit of each field takes a minute.
PHASES = ("--phases", "examples,fuzzing,stateful")


@pytest.mark.usefixtures("http", "worker")
def test_no_answer_is_a_fault_or_undescribed(service_url: str) -> None:
    ended = fuzz(service_url, 1, 1, *PHASES)
    assert ended.returncode == 0, ended.stdout
