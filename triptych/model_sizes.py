"""About how many bytes a model takes, known before it is loaded: no torch, no network.

The sizes of the files that its pipeline reads; where they are not here, an estimate from the table
of built-in presets.
"""

from collections.abc import Mapping
from pathlib import Path

from models.errors import PresetError
from models.presets import PRESETS, PresetTask
from models.presets.file_selection import Part, choose_files
from models.presets.handles import HANDLE, fetch
from worker.model_specs import ModelSpec

# int8 is what float32 is packed into once it is loaded
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 4}


def stored_bytes(spec: ModelSpec) -> int | None:
    """None where nothing is known: most hubs' models that were never fetched."""
    handle = PRESETS[spec.name].handle if spec.handle is None else spec.handle
    try:
        files = _file_sizes(handle)
        return sum(files[name] for name in choose_files(files, Part.PIPELINE, handle))
    except (OSError, PresetError):  # not here, or its worker says what is wrong
        return _estimate(handle, spec)


def _file_sizes(handle: str) -> Mapping[str, int]:
    """Bytes by name of a preset's files; empty where it lies on a hub that keeps no listing."""
    address = HANDLE.fullmatch(handle)
    if address is None:
        path = fetch(handle, Part.CONFIG)
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        return {_name_in(path, file): file.stat().st_size for file in files}
    return _cached_sizes(address["address"]) if address["scheme"].lower() == "hf" else {}


def _cached_sizes(address: str) -> Mapping[str, int]:
    # its import is slow, and the bundled models do without
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, HFValidationError

    from models.presets.hubs.hugging_face import ADDRESS

    parts = ADDRESS.fullmatch(address)
    if parts is None:
        return {}
    try:
        tree = get_cached_repo_tree(parts["repository"], revision=parts["revision"])
    except (CachedRepoTreeNotFoundError, HFValidationError):
        return {}
    return {file.path: file.size for file in tree}


def _name_in(path: Path, file: Path) -> str:
    return file.name if file == path else file.relative_to(path).as_posix()


def _estimate(handle: str, spec: ModelSpec) -> int | None:
    preset = next((preset for preset in PRESETS.values() if preset.handle == handle), None)
    if preset is None:
        return None
    # as the library loads them: a Flux as its files are, the small ones in float32
    default = "bfloat16" if preset.task is PresetTask.TEXT_TO_IMAGE else "float32"
    return preset.num_parameters * _DTYPE_BYTES[spec.dtype or default]
