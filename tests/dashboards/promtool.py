"""Prometheus' own tool, where it is installed; Debian's package `prometheus` has it."""

import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(*arguments: str | Path) -> None:
    """Let it check something; fail with its words, or skip the test where it is missing."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: `apt-get install prometheus` has it")
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
