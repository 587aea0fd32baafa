"""The alphas that a Flux LoRA file states beside its tensors.

diffusers writes them into the file's metadata, PEFT into `adapter_config.json` beside the file.
Sources: diffusers 0.42 (loaders/lora_base.py), PEFT 0.21 (tuners/lora/config.py). Knows nothing
about tensors.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, ValidationError
from safetensors import SafetensorError, safe_open

from models.checkpoints import preset_files
from models.errors import PresetFileError

METADATA_KEY = "lora_adapter_metadata"
PEFT_CONFIG_FILE = "adapter_config.json"
PEFT_WEIGHTS_FILE = "adapter_model.safetensors"  # what PEFT_CONFIG_FILE is about
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
