"""The LoRAs that an entry of the configuration names: fetched and attached when its model loads.

Attached at scale 0 they cost memory and no time; a job gives those that it chose their scales
(`images`). Knows nothing about files' formats.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from models.errors import PresetError
from models.presets.handles import OnProgress, fetch_lora
from worker.model_specs import ModelSpec


class _Adaptable(Protocol):
    """The part of `TextToImage` that LoRAs need."""

    def load_lora(self, file: Path, name: str, scale: float) -> None: ...


def fetch_loras(spec: ModelSpec, on_progress: OnProgress) -> dict[str, Path]:
    """Give the file or directory of each LoRA by its name; raises PresetError that names it."""
    found: dict[str, Path] = {}
    for name, source in spec.loras.items():
        try:
            found[name] = fetch_lora(source, on_progress)
        except PresetError as error:
            raise PresetError(f"model {spec.name}: LoRA {name}: {error}") from error
    return found


def attach_loras(spec: ModelSpec, paths: Mapping[str, Path], pipeline: _Adaptable) -> None:
    """Attach all at scale 0; raises PresetError that names the one that does not fit, and why."""
    for name, path in paths.items():
        try:
            pipeline.load_lora(path, name, scale=0.0)
        except PresetError as error:
            raise PresetError(f"model {spec.name}: LoRA {name} does not fit: {error}") from error


def num_bytes(paths: Mapping[str, Path]) -> int:
    """What the files hold: about what the LoRAs will take of the device's memory."""
    files = [
        file
        for path in paths.values()
        for file in (path.rglob("*.safetensors") if path.is_dir() else [path])
    ]
    return sum(file.stat().st_size for file in files)
