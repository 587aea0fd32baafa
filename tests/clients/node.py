"""Run scripts of this folder with the Node that the wheel brought, and OpenAI's client in it."""

import os
from pathlib import Path

import pytest

from tests.node import node

FOLDER = Path(__file__).parent


def run(*arguments: str, **settings: str) -> str:
    """Return what the script printed; `settings` are environment variables."""
    if not (FOLDER / "node_modules" / "openai").is_dir():
        pytest.skip("OpenAI's client for Node is not there: `make test` installs it")
    done = node(*arguments, cwd=FOLDER, env={**os.environ, **settings})
    assert done.stdout, done.stderr
    return done.stdout
