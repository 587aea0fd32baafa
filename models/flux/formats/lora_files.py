"""LoRA files for Flux, of any program: several at once, each with a name and a scale.

`attach` adds a file's adapters to the layers that they are for, which keep their weights: scales,
which `attached` gives, change and files go without loading anything again. Which layers those are,
`lora_entries` finds. Alphas may stand beside the tensors: diffusers (0.42, loaders/lora_base.py)
writes them into the file's metadata, PEFT (0.21, tuners/lora/config.py) into `adapter_config.json`
beside the file.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.checkpoints import preset_files
from models.checkpoints.safetensors_files import SafetensorsFiles
from models.checkpoints.weights import Weights
from models.errors import PresetFileError, WeightsError
from models.flux.backbone import FluxBackbone
from models.flux.formats.lora_entries import Entry, place
from models.flux.formats.lora_keys import clip_rows, transformer_rows
from models.layers.adapters import Adapter, Scale, adaptable_layers, adapters_of
from models.layers.norm_folding import FoldingLinear
from models.presets.file_selection import LORA_FILES, PEFT_CONFIG_FILE

METADATA_KEY = "lora_adapter_metadata"
PEFT_WEIGHTS_FILE = LORA_FILES[1]  # what PEFT_CONFIG_FILE is about
MAX_REPEATS = 2  # in a pattern: with more, or nested, matching can take for ever
_REPEAT = re.compile(r"[*+{]")
_REPEATED_GROUP = re.compile(r"\)[*+{]")


def _harmless(pattern: str) -> str:
    """Raise ValueError for what is no regular expression, or one that may take for ever."""
    if len(_REPEAT.findall(pattern)) > MAX_REPEATS or _REPEATED_GROUP.search(pattern):
        raise ValueError(f"at most {MAX_REPEATS} repeats are allowed, and none of a group")
    try:
        re.compile(pattern)
    except (re.error, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


class StatedAlphas(BaseModel):
    """PEFT's configuration, as far as it is about strengths."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    lora_alpha: FiniteFloat | None = None
    alpha_pattern: Mapping[
        Annotated[str, AfterValidator(_harmless)], FiniteFloat
    ] = {}  # regular expressions for the ends of modules' names
    use_rslora: bool = False

    def gain(self, module: str, rank: int) -> float | None:
        """Give the factor of B·A for a module of the file; None where nothing is stated."""
        matches = (
            alpha
            for pattern, alpha in self.alpha_pattern.items()
            if re.match(rf"(.*\.)?({pattern})$", module)
        )
        alpha = next(matches, self.lora_alpha)
        if alpha is None:
            return None
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def read_stated_alphas(file: Path, component: str) -> StatedAlphas:
    """Read what is stated for `component`, "transformer" or "text_encoder".

    Raises PresetFileError where it is malformed.
    """
    if file.name == PEFT_WEIGHTS_FILE and (file.parent / PEFT_CONFIG_FILE).is_file():
        return preset_files.read_model(file.parent, PEFT_CONFIG_FILE, StatedAlphas)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
        stated = json.loads(metadata.get(METADATA_KEY, "{}"))
        own = {key.removeprefix(f"{component}."): value for key, value in stated.items()}
        return StatedAlphas.model_validate({k: v for k, v in own.items() if "." not in k})
    except (
        AttributeError,
        RecursionError,
        SafetensorError,
        ValueError,
        ValidationError,
    ) as error:
        raise PresetFileError(f"{file}: its {METADATA_KEY} is malformed: {error}") from error


def attach(
    backbone: FluxBackbone,
    file: str | Path,
    name: str,
    scale: float = 1.0,
    clip: nn.Module | None = None,
) -> None:
    """Add the adapters of a file, `scale` · alpha / rank times, as `name`.

    `file` is one in the style of diffusers, PEFT, kohya or black-forest-labs, or a directory that
    diffusers or PEFT wrote. What it holds for the CLIP text encoder goes to `clip`.

    Raises PresetFileError for a missing or malformed file; WeightsError, which names them, for
    entries that belong nowhere, are not whole or do not fit; ValueError for a name that is empty
    or in use, and a scale that is not finite. Then nothing has changed.
    """
    modules = [backbone] if clip is None else [backbone, clip]
    if not name or any(name in attached(module) for module in modules):
        raise ValueError(f"LoRA name {name!r} is empty or in use")
    check_scale(scale)
    path = _find(Path(file))
    with SafetensorsFiles([path]) as weights:
        stated = {
            is_clip: read_stated_alphas(path, "text_encoder" if is_clip else "transformer")
            for is_clip in (False, True)
        }
        rows = transformer_rows(backbone)
        entries = place(path, weights.shapes, rows, None if clip is None else clip_rows(clip))
        adapters = [
            _read(entry, weights, stated[entry.is_clip], name, _beside(entry, backbone))
            for entry in entries
        ]
    scales = {is_clip: Scale(scale) for is_clip in (False, True)}
    for entry, adapter in zip(entries, adapters, strict=True):
        adapter.scale = scales[entry.is_clip]
        entry.rows.layer.add_adapter(adapter)


def detach(backbone: FluxBackbone, name: str, clip: nn.Module | None = None) -> None:
    """Take a LoRA away, and its memory.

    Raises ValueError for a name that is not attached.
    """
    modules = [backbone] if clip is None else [backbone, clip]
    check_names({name}, {each for module in modules for each in attached(module)})
    for module in modules:
        for layer in adaptable_layers(module).values():
            layer.remove_adapters(name)


def attached(module: nn.Module) -> dict[str, Scale]:
    """Give the scale of each LoRA that is attached, by name, in the order of attaching.

    A scale is how many times it counts its alpha / rank; at 0 it costs nothing.
    """
    return {
        adapter.name: adapter.scale
        for layer in adaptable_layers(module).values()
        for adapter in adapters_of(layer)
        if adapter.name is not None
    }


def check_names(names: Collection[str], known: Collection[str]) -> None:
    """Raise ValueError for a name that is not attached."""
    for name in names:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise ValueError(f"no LoRA is attached as {name!r}; attached: {allowed}")


def check_scale(scale: float) -> None:
    """Raise ValueError for a scale that is not finite."""
    if not math.isfinite(scale):
        raise ValueError(f"scale is {scale}; any finite number is allowed")


def _find(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in LORA_FILES if (path / name).is_file()]
    if len(found) != 1:
        raise PresetFileError(f"{path} has not just one of {' and '.join(LORA_FILES)}")
    return found[0]


def _beside(entry: Entry, backbone: FluxBackbone) -> Tensor:
    """Give a tensor of the device and dtype that the layer computes in.

    A weight of the transformer's blocks may be streamed from the host, or kept in float8.
    """
    return entry.rows.layer.weight if entry.is_clip else backbone.img_in.weight


def _read(
    entry: Entry, weights: Weights, stated: StatedAlphas, name: str, beside: Tensor
) -> Adapter:
    for key in (entry.a, entry.b):
        if not (dtype := weights.dtype(key)).is_floating_point:
            raise WeightsError(f"{weights.where}: {key} is {dtype}; floating dtypes are allowed")
    a, b = (weights.read(key).to(beside) for key in (entry.a, entry.b))
    gain = stated.gain(entry.module, rank=len(a))
    if entry.alpha is not None and gain is not None:
        raise WeightsError(f"{weights.where} states an alpha beside {entry.alpha}")
    if entry.alpha is not None:
        gain = weights.read(entry.alpha).item() / len(a)
        if not math.isfinite(gain):
            raise WeightsError(f"{weights.where}: {entry.alpha} is not finite")
    if entry.rows.is_swapped:
        b = torch.cat(tuple(reversed(b.chunk(2))))
    if isinstance(entry.rows.layer, FoldingLinear) and entry.rows.layer.fold is not None:
        b = entry.rows.layer.fold.to_ours(b).to(b)
    adapter = Adapter(a, b, name, entry.rows.first, 1.0 if gain is None else gain)
    return adapter.requires_grad_(False)
