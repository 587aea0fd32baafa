"""Read the Flux transformer as black-forest-labs publish it: one file, no configuration.

`flux1-dev.safetensors`, `flux1-schnell.safetensors` and what others made of them: float8, or
all-in-one with text encoders and autoencoder. Our names are the original's (black-forest-labs/flux,
src/flux/model.py, commit 802fb47), so sizes are read off the shapes. Safetensors only.
"""

from pathlib import Path

from torch import nn

from models.checkpoints.float8 import Float8Files
from models.checkpoints.safetensors_files import SafetensorsFiles
from models.checkpoints.weights import Recipe, ignore_none
from models.errors import PresetFileError
from models.flux.formats.stored_shapes import StoredShapes
from models.presets.file_selection import ORIGINAL_FLUX_FILES
from models.presets.formats import StoredBackbone

ALL_IN_ONE_PREFIX = "model.diffusion_model."
# What else an all-in-one file holds, as ComfyUI and the programs before it name it
OTHER_PARTS = ("vae.", "first_stage_model.", "text_encoders.", "cond_stage_model.", "conditioner.")

THETA = 10_000  # fixed in the original, src/flux/util.py
# The original's one division of its head width among index, row and column. Nothing in a file
# tells how another head width is divided: axes_dim must then be given.
AXES_DIM = {128: (16, 56, 56)}

_FIRST_DOUBLE, _FIRST_SINGLE = "double_blocks.0.", "single_blocks.0."


def read_stored(path: Path) -> StoredBackbone:
    """Read what builds the transformer in a file, or a directory that holds one such file.

    For a head width other than 128 the configuration lacks `axes_dim`.

    Raises PresetFileError for no such file, several of them, or one that holds something else.
    """
    file = find_file(path)
    with Float8Files([file]) as weights:
        stored = weights.shapes
    prefix = ALL_IN_ONE_PREFIX if any(n.startswith(ALL_IN_ONE_PREFIX) for n in stored) else ""
    shapes = StoredShapes.below(prefix, file, "original Flux transformer", stored)

    def recipes(backbone: nn.Module) -> dict[str, Recipe]:
        return {name: Recipe((f"{prefix}{name}",)) for name in backbone.state_dict()}

    return StoredBackbone(
        "FluxBackbone",
        _read_config(shapes),
        lambda: Float8Files([file]),
        recipes,
        (lambda name: name.startswith(OTHER_PARTS)) if prefix else ignore_none,
    )


def find_file(path: Path) -> Path:
    """Give the file itself, or the one that a directory holds.

    Raises PresetFileError for a directory with none or several.
    """
    if not path.is_dir():
        return path
    found = sorted(path.glob(ORIGINAL_FLUX_FILES))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise PresetFileError(
            f"{path} should hold one file {ORIGINAL_FLUX_FILES}; it holds {names}"
        )
    return found[0]


def find_all_in_one(path: Path, prefixes: tuple[str, ...]) -> Path | None:
    """Give the file that also holds tensors below one of these prefixes, if there is one.

    Raises PresetFileError for a malformed file.
    """
    files = [path] if path.is_file() else sorted(path.glob(ORIGINAL_FLUX_FILES))
    if len(files) != 1:
        return None
    with SafetensorsFiles(files) as weights:
        return files[0] if any(name.startswith(prefixes) for name in weights.shapes) else None


def _read_config(stored: StoredShapes) -> dict[str, object]:
    hidden_size, input_channels = stored.of("img_in.weight", 2)
    depth = stored.count("double_blocks")
    has_double = depth > 0
    norms = f"{_FIRST_DOUBLE}img_attn." if has_double else _FIRST_SINGLE
    (head_width,) = stored.of(f"{norms}norm.query_norm.scale", 1)
    axes_dim: dict[str, object] = {}
    if head_width in AXES_DIM:
        axes_dim = {"axes_dim": AXES_DIM[head_width]}
    return axes_dim | {
        "input_channels": input_channels,
        "hidden_size": hidden_size,
        "mlp_ratio": _mlp_width(stored, hidden_size, has_double) / hidden_size,
        "num_heads": hidden_size // head_width,
        "depth": depth,
        "depth_single_blocks": stored.count("single_blocks"),
        "theta": THETA,
        "use_bias": not has_double or f"{_FIRST_DOUBLE}img_attn.qkv.bias" in stored.shapes,
        "guidance_embed": any(name.startswith("guidance_in.") for name in stored.shapes),
        "image_shape": (None, input_channels),
        "text_shape": (None, stored.of("txt_in.weight", 2)[1]),
        "y_shape": (stored.of("vector_in.in_layer.weight", 2)[1],),
        "gelu_approximate": "tanh",
    }


def _mlp_width(stored: StoredShapes, hidden_size: int, has_double: bool) -> int:
    if has_double:
        return stored.of(f"{_FIRST_DOUBLE}img_mlp.0.weight", 2)[0]
    return stored.of(f"{_FIRST_SINGLE}linear2.weight", 2)[1] - hidden_size
