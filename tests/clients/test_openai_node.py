"""The stock `openai` client for Node against the running service: one test for each of its own."""

import json
import re
from collections.abc import Mapping

import pytest

from tests.clients import node
from tests.running_service import Service

SCRIPT = "openai.test.mjs"
NAMES = re.findall(r'^test\("(.+?)"', (node.FOLDER / SCRIPT).read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def why_failed(service: Service) -> Mapping[str, str | None]:
    """Of each test by its name; None where it passed."""
    printed = node.run("--test-reporter=./json_lines.mjs", SCRIPT, TRIPTYCH_URL=service.url)
    outcomes = map(json.loads, printed.splitlines())
    return {outcome["name"]: outcome["why_failed"] for outcome in outcomes}


@pytest.mark.parametrize("name", NAMES)
def test_node(name: str, why_failed: Mapping[str, str | None]) -> None:
    assert why_failed[name] is None, why_failed[name]
