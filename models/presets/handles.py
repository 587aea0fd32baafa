"""From a preset's name or handle to the local directory, or file, that holds it.

A scheme decides which hub's official client downloads (`hubs`), into that client's own cache, with
its own tokens and offline switches. Knows nothing about what the files mean. Order and handles as
KerasHub has them (`get_file`, keras_hub/src/utils/preset_utils.py, 0.32.0), with revisions added.
"""

import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from models.errors import (
    DownloadError,
    PickleError,
    PresetError,
    PresetFileError,
    UnknownPresetError,
)
from models.presets import PRESETS
from models.presets.file_selection import PICKLE_SUFFIXES, Lora, Part, choose_files

__all__ = ["Part", "fetch", "fetch_lora"]

HUBS = {  # scheme: module, and the package of its client
    "hf": ("models.presets.hubs.hugging_face", "huggingface-hub"),
    "kaggle": ("models.presets.hubs.kaggle", "kagglehub"),
    "modelscope": ("models.presets.hubs.modelscope", "modelscope-hub"),
}
HANDLE = re.compile(r"(?P<scheme>[a-z]+)://(?P<address>.*)", re.IGNORECASE | re.DOTALL)
ALLOWED = """a preset is one of
  a built-in name: {names}
  kaggle://ORG/MODEL/FRAMEWORK/VARIANT[/VERSION]
  hf://ORG/NAME[@REVISION]
  modelscope://ORG/NAME[@REVISION]
  a directory
  a .safetensors file of original Flux weights"""
_IN_REPOSITORY = re.compile(r"(?P<repository>[^/@]+/[^/@]+)/(?P<file>[^@]+)(?P<revision>@.+)?")

OnProgress: TypeAlias = Callable[[int, int], None]  # bytes that are here, of how many


class Hub(Protocol):
    """A module of `hubs`."""

    def fetch(self, handle: str, address: str, part: Part | Lora, on_progress: OnProgress) -> Path:
        """Download what a part needs of the preset at an address, and give its directory."""


def fetch(
    preset: str | Path, part: Part = Part.BACKBONE, on_progress: OnProgress = lambda *_: None
) -> Path:
    """Give the directory, or the single file, of a preset; download what the part needs of it.

    A built-in name comes before everything else. What the hub's client has in its cache is used
    again; where the hub cannot be reached, the cache alone decides. `on_progress` is called during
    a download, where the hub's client tells how far it is (Hugging Face's does).

    Raises UnknownPresetError for no such preset, repository or revision, PresetError for a
    malformed handle, PresetFileError for files that the repository lacks, PickleError where it has
    pickles only, and below DownloadError: AccessError where terms or a token are missing,
    OfflineError where neither network nor cache has it, DigestError for damaged files.
    """
    if isinstance(preset, Path):
        return _find_path(preset, preset)
    if not isinstance(preset, str):
        raise TypeError(f"preset is {preset!r:.100}; a string or a Path is allowed")
    source = PRESETS[preset].handle if preset in PRESETS else preset
    handle = HANDLE.fullmatch(source)
    if handle and handle["scheme"].lower() in HUBS:
        return _fetch_from_hub(
            source, handle["scheme"].lower(), handle["address"], part, on_progress
        )
    return _find_path(Path(source), preset)


def fetch_lora(source: str, on_progress: OnProgress = lambda *_: None) -> Path:
    """Give the file, or the directory, of a LoRA; download it where it is on a hub.

    `source` is a path, the handle of a repository with one LoRA, or `hf://ORG/NAME/FILE[@REVISION]`
    (`modelscope://` likewise) for one of several. Raises as `fetch` does.
    """
    handle = HANDLE.fullmatch(source)
    scheme = handle["scheme"].lower() if handle else ""
    if handle is None or scheme not in HUBS:
        return _find_lora(Path(source))
    address, lora = handle["address"], Lora()
    if scheme != "kaggle" and (parts := _IN_REPOSITORY.fullmatch(address)):  # it has no such form
        address, lora = parts["repository"] + (parts["revision"] or ""), Lora(parts["file"])
    directory = _fetch_from_hub(source, scheme, address, lora, on_progress)
    held = [file.relative_to(directory).as_posix() for file in directory.rglob("*")]
    return directory / choose_files(held, lora, source)[-1]


def _find_lora(path: Path) -> Path:
    if path.suffix in PICKLE_SUFFIXES:
        raise PickleError(f"{path} is a pickle, which can run code; safetensors is needed")
    if not path.exists():
        raise PresetFileError(
            f"{path} does not exist; a LoRA is a safetensors file, a directory that diffusers or "
            "PEFT wrote, or on a hub: hf://ORG/NAME[/FILE]"
        )
    return path


def _fetch_from_hub(
    handle: str, scheme: str, address: str, part: Part | Lora, on_progress: OnProgress
) -> Path:
    hub = _load_hub(handle, *HUBS[scheme])
    try:
        return hub.fetch(handle, address, part, on_progress)
    except OSError as error:  # a full disk, a cache that is not ours to write
        raise DownloadError(f"{handle} could not be stored: {error}") from error


def _load_hub(handle: str, module: str, package: str) -> Hub:
    try:
        hub: Hub = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise PresetError(
            f"{handle} needs the package {package}, which is not installed: pip install {package}"
        ) from error
    return hub


def _find_path(path: Path, preset: str | Path) -> Path:
    """Find a path that may be too long, or not ours to read."""
    try:
        found = _look_for(path, preset)
    except OSError as error:
        raise PresetFileError(f"{str(path)!r:.100} cannot be read: {error.strerror}") from error
    if not os.access(found, os.R_OK):
        raise PresetFileError(f"{found} cannot be read: it is not ours to read")
    return found


def _look_for(path: Path, preset: str | Path) -> Path:
    is_weights = path.suffix == ".safetensors" and path.is_file()
    if preset != "" and (path.is_dir() or is_weights):  # Path("") is the current directory
        return path
    if path.is_file() and path.suffix in PICKLE_SUFFIXES:
        raise PickleError(f"{path} is a pickle, which can run code; safetensors is needed")
    allowed = ALLOWED.format(names=", ".join(sorted(PRESETS)))
    raise UnknownPresetError(f"preset {str(preset)!r} is unknown: {allowed}")
