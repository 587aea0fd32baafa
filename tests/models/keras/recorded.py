"""The cases that KerasHub itself recorded: presets, inputs, and the outputs it gave.

`cases/` was written by keras-hub 0.32.0 (keras 3.15.1), the legacy case by keras-nlp 0.8.2; every
weight is random. `record.py` makes part of them, and shows how.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from models import Backbone

CASES = Path(__file__).parent / "cases"


class _Run(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: str
    outputs: str
    preset: str
    lora: str | None = None


class _Constructor(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    data_format: str | None = None


class _Case(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    constructor: _Constructor = _Constructor()
    runs: tuple[_Run, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One forward pass of KerasHub."""

    name: str
    preset: Path
    lora: Path | None
    data_format: str | None  # which KerasHub forgets to store
    inputs_file: Path
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def __str__(self) -> str:
        return self.name

    @property
    def is_plain(self) -> bool:
        return self.lora is None and self.preset.name == "preset"

    def load(self) -> Backbone:
        """Load the preset and, where there is one, the adapter."""
        if self.data_format is None:
            backbone = Backbone.from_preset(self.preset)
        else:
            backbone = Backbone.from_preset(self.preset, data_format=self.data_format)
        if self.lora is not None:
            backbone.load_lora_weights(self.lora)
        return backbone

    def outputs_of(self, backbone: Backbone) -> dict[str, Tensor]:
        """Run a backbone of ours on the recorded inputs."""
        with torch.inference_mode():
            output = backbone(**self.inputs)
        return output if isinstance(output, dict) else {"output": output}


def runs() -> list[Run]:
    """Give every recorded run."""
    return [run for file in sorted(CASES.glob("*/case.json")) for run in _runs(file)]


def presets() -> list[Run]:
    """Give one run of every case whose preset holds its whole configuration."""
    first = {run.preset.parent: run for run in reversed(runs()) if run.is_plain}
    return [run for run in first.values() if run.data_format is None]


def _runs(file: Path) -> Iterator[Run]:
    directory = file.parent
    case = _Case.model_validate(json.loads(file.read_text()))
    for run in case.runs:
        yield Run(
            name=f"{directory.name}-{run.outputs.removesuffix('.npz')}",
            preset=directory / run.preset,
            lora=None if run.lora is None else directory / run.lora,
            data_format=case.constructor.data_format,
            inputs_file=directory / run.inputs,
            inputs=arrays(directory / run.inputs),
            outputs=arrays(directory / run.outputs),
        )


def arrays(file: Path) -> dict[str, Tensor]:
    with np.load(file) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}
