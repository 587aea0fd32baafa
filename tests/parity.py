"""How near are our numbers to the oracles'? `python -m pytest -p tests.parity tests/models`.

A plugin that is not there unless it is asked for: after the run it lists, for every test that
compares with a tolerance, the largest difference that it saw beside the one that it allows.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch


@dataclass(slots=True)
class Largest:
    """Over all cases of a test."""

    seen: float
    allowed: float


_LARGEST = pytest.StashKey[dict[str, Largest]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LARGEST] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Note what every comparison of this test comes to."""
    compare = torch.testing.assert_close
    name = item.nodeid.partition("[")[0]

    def noting(
        actual: object, expected: object, *, atol: float | None = None, **rest: object
    ) -> None:
        if atol:
            worst = item.config.stash[_LARGEST].setdefault(name, Largest(0.0, atol))
            worst.seen = max(worst.seen, largest_difference(actual, expected))
            worst.allowed = max(worst.allowed, atol)
        compare(actual, expected, atol=atol, **rest)  # type: ignore[arg-type]

    torch.testing.assert_close = noting
    try:
        return (yield)
    finally:
        torch.testing.assert_close = compare


def largest_difference(actual: object, expected: object) -> float:
    """Go through mappings and sequences down to the tensors."""
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        pairs = [(actual[key], expected[key]) for key in actual.keys() & expected.keys()]
    elif isinstance(actual, Sequence) and isinstance(expected, Sequence):
        pairs = list(zip(actual, expected, strict=False))
    else:
        ours, theirs = (torch.as_tensor(each).detach().double() for each in (actual, expected))
        same_shape = ours.shape == theirs.shape and ours.numel() > 0
        return float((ours - theirs).abs().max()) if same_shape else 0.0
    return max((largest_difference(*pair) for pair in pairs), default=0.0)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for name, worst in sorted(config.stash[_LARGEST].items()):
        terminalreporter.write_line(f"{worst.seen:.1e} of {worst.allowed:.0e}  {name}")
