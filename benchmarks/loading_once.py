"""One loading of a checkpoint, or reading of its files: `benchmarks.loading` runs each alone.

`python -m benchmarks.loading_once ACTION DTYPE DIRECTORY` writes what it took, as JSON. Imports
nothing that loading does not need.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from models import Backbone
from models.flux.formats.autoencoder_files import load_autoencoder
from models.flux.formats.encoder_files import load_clip, load_t5
from models.flux.parts import load_backbone

STATUS = Path("/proc/self/status")
NO_TOKEN = 0  # CLIP's end of text, which loading has no use for


@dataclass(frozen=True, slots=True)
class Once:
    """One measurement in one process."""

    seconds: float
    peak_bytes: int  # beyond the imports
    weights_bytes: int


def weights_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.suffix in {".safetensors", ".h5"})


def resident_bytes(key: str) -> int:
    """Read `VmRSS` (now) or `VmHWM` (the peak)."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} has no {key}")


def load_once(directory: Path, dtype: str) -> Once:
    with torch.device("meta"):
        Backbone.from_preset(directory, load_weights=False)  # imports what this format needs
    before = resident_bytes("VmRSS")
    started = time.perf_counter()
    backbone = Backbone.from_preset(directory, dtype=dtype)
    seconds = time.perf_counter() - started
    num_bytes = sum(each.nbytes for each in backbone.state_dict().values())
    return Once(seconds, resident_bytes("VmHWM") - before, num_bytes)


def read_once(directory: Path) -> Once:
    """Read every byte of the weights' files into fresh memory."""
    before, total = resident_bytes("VmRSS"), 0
    started = time.perf_counter()
    contents = []
    for path in weights_files(directory):
        content = torch.empty(path.stat().st_size, dtype=torch.uint8)
        unread = content.numpy().data
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(unread):
                unread = unread[count:]
        contents.append(content)
        total += len(content)
    seconds = time.perf_counter() - started
    return Once(seconds, resident_bytes("VmHWM") - before, total)


def load_parts_once(directory: Path) -> Once:
    """Load each part and drop it; the bytes are those of the largest."""
    before, sizes = resident_bytes("VmRSS"), []
    started = time.perf_counter()
    loads: tuple[Callable[[], nn.Module], ...] = (
        lambda: load_autoencoder(directory, "cpu", None),
        lambda: load_clip(directory, NO_TOKEN, "cpu", None),
        lambda: load_t5(directory, "cpu", None),
        lambda: load_backbone(directory, "cpu", None),
    )
    for load in loads:
        sizes.append(sum(each.nbytes for each in load().parameters()))
    seconds = time.perf_counter() - started
    return Once(seconds, resident_bytes("VmHWM") - before, max(sizes))


def main() -> None:
    actions: dict[str, Callable[[Path, str], Once]] = {
        "load": load_once,
        "read": lambda directory, _: read_once(directory),
        "parts": lambda directory, _: load_parts_once(directory),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=actions)
    parser.add_argument("dtype")
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    once = actions[arguments.action](arguments.directory, arguments.dtype)
    sys.stdout.write(json.dumps(asdict(once)))


if __name__ == "__main__":
    main()
