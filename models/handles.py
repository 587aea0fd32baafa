"""From a preset's name or handle to the local directory that holds it."""

from enum import StrEnum
from pathlib import Path

from models import preset_files


class Part(StrEnum):
    """How much of a preset is needed."""

    CONFIG = "config"
    BACKBONE = "backbone"
    PIPELINE = "pipeline"


def fetch(preset: str | Path, part: Part = Part.BACKBONE) -> Path:  # noqa: ARG001
    """Give the directory of a built-in name, which comes first, or of a path."""
    return preset_files.find_directory(preset)
