"""Fetch and load presets in a process of its own: a JSON line in, a JSON line out.

The clients read their environment when they are imported, so each environment needs a process.
"""

import json
import os
import resource
import sys

answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the clients talk on stdout

from modelscope_hub import _download  # noqa: E402

from models.errors import PresetError  # noqa: E402
from models.presets.handles import Part, fetch, fetch_lora  # noqa: E402

_download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF = 0.0  # a second and two, and no setting

if "MAX_FILE_BYTES" in os.environ:  # stands in for a full disk
    limit = int(os.environ["MAX_FILE_BYTES"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def load(preset: str, load_weights: bool) -> dict[str, str]:
    from models import Backbone  # slow: only where it is asked for
    from tests.models.presets.hubs.digests import digest_of

    backbone = Backbone.from_preset(preset, load_weights=load_weights)
    return {"class": type(backbone).__name__, "digest": digest_of(backbone)}


def answer(asked: dict[str, str]) -> dict[str, str]:
    try:
        if "load" in asked:
            return load(asked["load"], bool(asked["load_weights"]))
        if "lora" in asked:
            return {"path": str(fetch_lora(asked["lora"]))}
        told: list[str] = []
        path = fetch(
            asked["preset"], Part(asked["part"]), lambda done, total: told.append(f"{done}/{total}")
        )
        return {"path": str(path), "progress": told[-1] if told else ""}
    except PresetError as error:
        return {"error": type(error).__name__, "message": str(error)}


with answers:
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()
