"""Let schemathesis call the running app by its description: `python -m tests.openapi.fuzz`.

All of its checks and phases are on, links included, and those of `checks.py`. It ends with an error
where an answer is a 5xx, or any that the description has not.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from service.main import create_app
from service.settings import ServiceSettings
from tests.openapi.serving import running_service

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]


def fuzz(url: str, num_examples: int, seed: int, *options: str) -> subprocess.CompletedProcess[str]:
    """At least so many requests; all text that schemathesis writes is in the result."""
    document = create_app(ServiceSettings()).openapi()
    num_operations = sum(len(path) for path in document["paths"].values())
    with TemporaryDirectory() as folder:
        path = Path(folder) / "openapi.json"
        path.write_text(json.dumps(_by_event(document)))
        command = [
            *(sys.executable, "-m", "schemathesis.cli"),
            *("--config-file", str(_HERE / "schemathesis.toml"), "run", str(path), "--url", url),
            *("--checks", "all", "--max-examples", str(math.ceil(num_examples / num_operations))),
            *("--seed", str(seed), "--generation-database", "none", "--no-color", *options),
        ]
        return subprocess.run(
            command,
            cwd=folder,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "tests.openapi.checks",
                "PYTHONPATH": str(_ROOT),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


def _by_event(node: object) -> object:
    """The description, with an event stream's schema that of one event, as schemathesis has it."""
    if isinstance(node, list):
        return [_by_event(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("contentMediaType") == "text/event-stream":
        return node["contentSchema"]["items"]
    return {key: _by_event(value) for key, value in node.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2000, help="requests, at least")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with running_service() as url:
        ended = fuzz(url, arguments.examples, arguments.seed)
    sys.stdout.write(ended.stdout)
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
