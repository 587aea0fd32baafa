"""The cases that KerasHub itself recorded: presets, inputs, and the outputs it gave.

`cases/` was written by keras-hub 0.32.0 (keras 3.15.1), the legacy case by keras-nlp 0.8.2; every
weight is random. `record.py` makes those that end in `_more`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

CASES = Path(__file__).parent / "cases"


class _Run(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: str
    outputs: str
    preset: str
    lora: str | None = None


class _Case(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    runs: tuple[_Run, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One forward pass of KerasHub."""

    name: str
    preset: Path
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def __str__(self) -> str:
        return self.name


def runs() -> list[Run]:
    """Give every recorded run without an adapter."""
    return [
        _run(file.parent, run)
        for file in sorted(CASES.glob("*/case.json"))
        for run in _Case.model_validate(json.loads(file.read_text())).runs
        if run.lora is None
    ]


def _run(directory: Path, run: _Run) -> Run:
    inputs, outputs = (arrays(directory / each) for each in (run.inputs, run.outputs))
    name = f"{directory.name}-{run.inputs.removesuffix('.npz')}"
    return Run(name, directory / run.preset, inputs, outputs)


def arrays(file: Path) -> dict[str, Tensor]:
    with np.load(file) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}
