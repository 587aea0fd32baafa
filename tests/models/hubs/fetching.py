"""Fetch presets in a process of its own: a JSON line in, a JSON line out.

The clients read their environment when they are imported, so each environment needs a process.
"""

import json
import os
import sys

answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the clients talk on stdout

from modelscope_hub import _download  # noqa: E402

from models.errors import PresetError  # noqa: E402
from models.handles import Part, fetch  # noqa: E402

_download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF = 0.0  # a second and two, and no setting


def answer(preset: str, part: str) -> dict[str, str]:
    try:
        return {"path": str(fetch(preset, Part(part)))}
    except PresetError as error:
        return {"error": type(error).__name__, "message": str(error)}


with answers:
    for line in sys.stdin:
        asked = json.loads(line)
        answers.write(json.dumps(answer(asked["preset"], asked["part"])) + "\n")
        answers.flush()
