"""Which files of a preset's repository are needed, told from their names alone.

KerasHub's, transformers', diffusers' and the original Flux layout. Knows nothing about hubs and
reads no file. Never chosen: pickles, other frameworks' weights, variants of another dtype, and the
single files that repeat a diffusers repository's folders at its root.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from models.checkpoints.preset_files import (
    CONFIG_FILE,
    DIFFUSERS_INDEX_FILE,
    KERAS_TASK_WEIGHTS_FILE,
    TASK_WEIGHTS_FILE,
)
from models.errors import PickleError, PresetFileError

ORIGINAL_FLUX_FILES = "flux1-*.safetensors"  # as black-forest-labs name them
# What else an original pipeline has, if not in diffusers' folders: autoencoder, CLIP, T5.
ORIGINAL_PARTS = {
    "vae/": "ae.safetensors",
    "text_encoder/": "clip_l*.safetensors",
    "text_encoder_2/": "t5xxl*.safetensors",
}
ASSETS = "assets/"
LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # diffusers', PEFT's
PEFT_CONFIG_FILE = "adapter_config.json"  # beside PEFT's, which says nothing of its strength

# Folders of a diffusers Flux repository, with the stem of their weights; None: they have none.
DIFFUSERS_FOLDERS: dict[str, str | None] = {
    "transformer/": "diffusion_pytorch_model",
    "vae/": "diffusion_pytorch_model",
    "text_encoder/": "model",
    "text_encoder_2/": "model",
    "tokenizer/": None,
    "tokenizer_2/": None,
    "scheduler/": None,
}
TRANSFORMER = "transformer/"

SMALL_FILE_SUFFIXES = (".json", ".txt", ".model", ".spm")  # configuration and vocabularies
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class Part(StrEnum):
    """How much of a preset is needed."""

    CONFIG = "config"  # what says which class it is, and its arguments
    BACKBONE = "backbone"  # and the weights of the backbone
    PIPELINE = "pipeline"  # everything that the preset's task reads


@dataclass(frozen=True, slots=True)
class Lora:
    """The LoRA of a repository: the file of this name; None: the only one that it has."""

    file: str | None = None


def choose_files(names: Collection[str], part: Part | Lora, where: str) -> tuple[str, ...]:
    """Choose from all file names of a repository those that a part, or its LoRA, needs.

    What completes the weights (a single file, or the index of shards) comes last, so that a cache
    that holds it, filled in this order, holds them all. `where` names the repository in messages.

    Raises PickleError where weights exist only as pickles, PresetFileError where they or the
    configuration are missing.
    """
    held = frozenset(name for name in names if _stays_inside(name))
    if isinstance(part, Lora):
        return _of_lora(held, part, where)
    if DIFFUSERS_INDEX_FILE in held:
        return _of_diffusers(held, part, where)
    if CONFIG_FILE in held:
        return _of_one_folder(held, part, where)
    return _of_original(held, part, where)


def _of_diffusers(held: frozenset[str], part: Part, where: str) -> tuple[str, ...]:
    config = TRANSFORMER + CONFIG_FILE
    if config not in held:
        raise PresetFileError(f"{where} has no {config}")
    if part is Part.CONFIG:
        return (DIFFUSERS_INDEX_FILE, config)
    folders = [TRANSFORMER]
    if part is Part.PIPELINE:
        folders = [*_other_folders(held), TRANSFORMER]
    return (DIFFUSERS_INDEX_FILE, *_of_folders(held, folders, where))


def _other_folders(held: frozenset[str]) -> list[str]:
    present = {name.partition("/")[0] + "/" for name in held if "/" in name}
    return [each for each in DIFFUSERS_FOLDERS if each in present and each != TRANSFORMER]


def _of_folders(held: frozenset[str], folders: Collection[str], where: str) -> tuple[str, ...]:
    small = [name for folder in folders for name in _small_files(held, folder)]
    stems = [(folder, DIFFUSERS_FOLDERS[folder]) for folder in folders]
    weights = [
        name
        for folder, stem in stems
        if stem is not None
        for name in _weights(held, (f"{folder}{stem}",), where)
    ]
    return (*small, *weights)


def _of_one_folder(held: frozenset[str], part: Part, where: str) -> tuple[str, ...]:
    """KerasHub and transformers; their names do not clash. Also a bare diffusers transformer."""
    if part is Part.CONFIG:
        return (CONFIG_FILE,)
    weights = _weights(held, ("model", "diffusion_pytorch_model"), where)
    if part is Part.BACKBONE:
        return (CONFIG_FILE, *weights)
    assets = sorted(name for name in held if name.startswith(ASSETS) and _is_small(name))
    heads = [name for name in (TASK_WEIGHTS_FILE, KERAS_TASK_WEIGHTS_FILE) if name in held]
    return (*_small_files(held, ""), *assets, *heads, *weights)


def _of_original(held: frozenset[str], part: Part, where: str) -> tuple[str, ...]:
    transformer = _only(held, ORIGINAL_FLUX_FILES, where)
    if not transformer:
        files = (CONFIG_FILE, DIFFUSERS_INDEX_FILE, ORIGINAL_FLUX_FILES)
        raise _lacking(held, "", files, where)
    if part is not Part.PIPELINE:
        return transformer  # the file itself says its sizes, so CONFIG needs it too
    folders = _other_folders(held)
    patterns = [pattern for folder, pattern in ORIGINAL_PARTS.items() if folder not in folders]
    found = [name for pattern in patterns for name in _only(held, pattern, where)]
    return (*_of_folders(held, folders, where), *found, *transformer)


def _of_lora(held: frozenset[str], lora: Lora, where: str) -> tuple[str, ...]:
    """The weights, which come last, and what PEFT writes beside its own."""
    file = _only_lora(held, where) if lora.file is None else lora.file
    if file not in held or not file.endswith(".safetensors"):
        found = ", ".join(sorted(name for name in held if name.endswith(".safetensors"))[:10])
        raise PresetFileError(f"{where}: {file} is none of its safetensors files: {found or '-'}")
    folder, _, name = file.rpartition("/")
    config = f"{folder}/{PEFT_CONFIG_FILE}" if folder else PEFT_CONFIG_FILE
    return (config, file) if name == LORA_FILES[1] and config in held else (file,)


def _only_lora(held: frozenset[str], where: str) -> str:
    """The file that diffusers or PEFT would load, else the only one; never guess among several."""
    for name in LORA_FILES:
        if name in held:
            return name
    found = sorted(name for name in held if "/" not in name and name.endswith(".safetensors"))
    if len(found) > 1:
        raise PresetFileError(
            f"{where} has several LoRAs: {', '.join(found[:10])}; name one, as hf://ORG/NAME/FILE"
        )
    if not found:
        raise _lacking(held, "", (*LORA_FILES, "*.safetensors"), where)
    return found[0]


def _only(held: frozenset[str], pattern: str, where: str) -> tuple[str, ...]:
    """Find the file that fits a pattern, if there is one; never guess among several."""
    found = sorted(name for name in held if fnmatchcase(name, pattern))
    if len(found) > 1:
        raise PresetFileError(
            f"{where} has several {pattern}: {', '.join(found)}; "
            "download one and give the path of its directory"
        )
    return tuple(found)


def _weights(held: frozenset[str], stems: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Find weights in the order in which they are read: H5 before safetensors, whole before shards.

    The index, or the one file, comes last.
    """
    for stem in stems:
        forms = (
            (f"{stem}.weights.h5", None),
            (f"{stem}.weights.json", rf"{re.escape(stem)}_\d+\.weights\.h5"),
            (f"{stem}.safetensors", None),
            (f"{stem}.safetensors.index.json", rf"{re.escape(stem)}-\d+-of-\d+\.safetensors"),
        )
        for name, shards in forms:
            if name in held:
                pattern = re.compile(shards or "(?!)")
                return (*sorted(each for each in held if pattern.fullmatch(each)), name)
    folder = stems[0].rpartition("/")[0]
    allowed = [f"{stem}{form}" for stem in stems for form in (".safetensors", ".weights.h5")]
    raise _lacking(held, folder, allowed, where)


def _small_files(held: frozenset[str], folder: str) -> list[str]:
    """Name the configuration and vocabularies directly in a folder, but no index of weights."""
    return sorted(
        name
        for name in held
        if name.startswith(folder)
        and "/" not in name.removeprefix(folder)
        and _is_small(name)
        and not name.endswith((".index.json", ".weights.json"))
    )


def _is_small(name: str) -> bool:
    return name.endswith(SMALL_FILE_SUFFIXES)


def _stays_inside(name: str) -> bool:
    """Refuse what would be written outside the cache: the hub's listing is not to be trusted."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _lacking(
    held: frozenset[str], folder: str, files: Collection[str], where: str
) -> PresetFileError:
    pickles = sorted(
        name for name in held if name.startswith(folder) and name.endswith(PICKLE_SUFFIXES)
    )
    if pickles:
        return PickleError(
            f"{where} has its weights only as pickles ({', '.join(pickles[:3])}), which can run "
            "code; safetensors or Keras H5 is needed"
        )
    return PresetFileError(f"{where} has none of {', '.join(files)} among its {len(held)} files")
