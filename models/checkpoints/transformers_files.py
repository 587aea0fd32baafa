"""The files of a Hugging Face `transformers` model directory, whatever the model.

Source: transformers/modeling_utils.py (5.23.0), `save_pretrained`: a model with a head stores its
backbone under a prefix, a bare one without. Knows nothing about the families.
"""

from pathlib import Path

from models.checkpoints.safetensors_files import SafetensorsFiles
from models.errors import PickleError

WEIGHTS_STEM = "model"
PICKLED_WEIGHTS_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def open_weights(directory: Path) -> SafetensorsFiles:
    """Open `model.safetensors` or its shards.

    Raises PresetFileError for a missing or malformed file, PickleError for weights only in one.
    """
    has_safetensors = any(directory.glob(f"{WEIGHTS_STEM}.safetensors*"))
    pickled = [name for name in PICKLED_WEIGHTS_FILES if (directory / name).is_file()]
    if pickled and not has_safetensors:
        raise PickleError(
            f"{directory} holds its weights in {pickled[0]}, a pickle, which can run code and is "
            "not read; save them as safetensors with transformers' save_pretrained"
        )
    return SafetensorsFiles.in_directory(directory, WEIGHTS_STEM)


def stored_prefix(directory: Path, prefix: str) -> str:
    """Say what the backbone's tensors begin with: `prefix` below a head, nothing in a bare model.

    Raises PresetFileError as `open_weights` does.
    """
    with open_weights(directory) as weights:
        is_below_head = any(name.startswith(prefix) for name in weights.shapes)
    return prefix if is_below_head else ""
