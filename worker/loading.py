"""From an entry of the configuration to a pipeline on the device and the card that describes it."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import torch
from torch import nn

from models.errors import PresetError
from models.load import load_pipeline
from models.presets import PRESETS
from models.presets.format_detection import detect, detect_task
from models.presets.handles import HANDLE, Part, fetch
from worker.contract.model_cards import ModelCard
from worker.image_limits import FluxProperties, limits_of
from worker.model_specs import PRESET_TASKS, ModelSpec

if TYPE_CHECKING:  # its import is slow, and other queues' workers do without
    from models.flux.text_to_image import TextToImage

P_co = TypeVar("P_co", covariant=True)
Report = Callable[[str], None]  # takes what is known of the progress

_GB = 1e9
_DIGESTED_BYTES = 2**20  # at each end of a file
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LICENSE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


class _Pipeline(Protocol):
    """What all pipelines have."""

    @property
    def modules(self) -> tuple[nn.Module, ...]: ...


@dataclass(frozen=True, slots=True)
class Loaded(Generic[P_co]):
    """A pipeline, and what is known of it."""

    pipeline: P_co
    card: ModelCard


def load_model(spec: ModelSpec, device: str, report: Report) -> Loaded[object]:
    """Fetch, load and describe a model; `report` is called with what is known on the way.

    Raises PresetError as `load_pipeline` does, and for a model of another task than was said.
    """

    def on_progress(done: int, total: int) -> None:
        report(f"downloading {done / _GB:.1f} of {total / _GB:.1f} GB")

    path = fetch(spec.source, Part.PIPELINE, on_progress)
    report("loading")
    if spec.task is not (task := PRESET_TASKS[detect_task(path)]):
        raise PresetError(f"model {spec.name}: its task is {task}, not {spec.task}")
    dtype = None if spec.dtype is None else cast(torch.dtype, getattr(torch, spec.dtype))
    pipeline = load_pipeline(path, spec.device or device, dtype)
    return Loaded(pipeline, describe(spec, path, pipeline))


def describe(spec: ModelSpec, path: Path, pipeline: _Pipeline) -> ModelCard:
    """Write the card of a model whose files lie at a path."""
    assert spec.task is not None, "this is a bug: `with_tasks` has not run"
    preset = PRESETS[spec.name] if spec.handle is None else None
    handle = spec.source if preset is None else preset.handle
    parameters = [p for module in pipeline.modules for p in module.parameters()]
    properties = _flux_properties(pipeline)
    return ModelCard(
        name=spec.name,
        task=spec.task,
        family=detect(path).class_name,
        description=None if preset is None else preset.description,
        license=_license(path) if preset is None else preset.license,
        source=handle if HANDLE.fullmatch(handle) else None,
        revision=path.name if _COMMIT.fullmatch(path.name) else _digest(path),
        num_parameters=sum(parameter.numel() for parameter in parameters),
        memory_bytes=sum(parameter.nbytes for parameter in parameters),
        dtype=str(parameters[0].dtype).removeprefix("torch."),
        device=str(parameters[0].device),
        image_limits=None if properties is None else limits_of(spec, properties),
        labels=getattr(pipeline, "labels", None),
        embedding_width=getattr(pipeline, "embedding_width", None),
        max_tokens=getattr(pipeline, "max_tokens", None),
    )


def _flux_properties(pipeline: object) -> FluxProperties | None:
    if not hasattr(pipeline, "text_encoders"):
        return None
    paints = cast("TextToImage", pipeline)
    return FluxProperties(paints.has_guidance, paints.text_encoders.max_tokens)


def _license(path: Path) -> str | None:
    """Read it from the card that hubs keep beside a model, where that is there."""
    try:
        card = (path / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _LICENSE.search(card.partition("\n---")[0])
    return None if found is None else found[1]


def _digest(path: Path) -> str:
    """Tell files apart by names, sizes and both ends of each: a whole Flux takes a minute."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        name = "" if path.is_file() else file.relative_to(path).as_posix()
        digest.update(f"{name} {size}\n".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_DIGESTED_BYTES))
            opened.seek(max(0, size - _DIGESTED_BYTES))
            digest.update(opened.read())
    return digest.hexdigest()[:16]
