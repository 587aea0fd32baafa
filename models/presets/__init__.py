"""A preset's name or handle to files on disk, and what the built-in ones hold.

Importing this loads no torch; `formats` does.
"""

from models.presets.table import BUNDLED_NAMES, PRESETS, Preset, PresetTask, get_preset

__all__ = ["BUNDLED_NAMES", "PRESETS", "Preset", "PresetTask", "get_preset"]
