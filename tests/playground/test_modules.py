"""The modules that need no page, by Node's own test runner: one test for each of its own."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.node import node

HERE = Path(__file__).parent
REPORTER = HERE.parent / "clients" / "json_lines.mjs"
NAMES = [
    f"{file.name}: {name}"
    for file in sorted(HERE.glob("*.test.mjs"))
    for name in re.findall(r'^test\(\s*"(.+?)"', file.read_text(), re.MULTILINE)
]


@pytest.fixture(scope="module")
def why_failed() -> Mapping[str, str | None]:
    """Of each test by its file and name; None where it passed."""
    outcomes = {}
    for file in sorted(HERE.glob("*.test.mjs")):
        reporter = f"--test-reporter={REPORTER}"
        done = node("--test", "--test-isolation=none", reporter, str(file))
        assert done.stdout, done.stderr
        for outcome in map(json.loads, done.stdout.splitlines()):
            outcomes[f"{file.name}: {outcome['name']}"] = outcome["why_failed"]
    return outcomes


@pytest.mark.parametrize("name", NAMES)
def test_module(name: str, why_failed: Mapping[str, str | None]) -> None:
    assert why_failed[name] is None, why_failed[name]
