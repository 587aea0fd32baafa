"""What the API is told of a model that was loaded: its card, and the digest of its results."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import nn

from models.execution.execution import Execution
from models.flux.placement import Placement
from models.presets import PRESETS
from models.presets.format_detection import detect
from models.presets.handles import HANDLE
from worker.contract.model_cards import ImageLimits, ModelCard
from worker.image_limits import FluxProperties, limits_of
from worker.model_specs import ModelSpec
from worker.precision import execution_of
from worker.software import software_digest

if TYPE_CHECKING:  # its import is slow, and other queues' workers do without
    from models.flux.text_to_image import TextToImage

_DIGESTED_BYTES = 2**20  # at each end of a file
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LICENSE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


class Pipeline(Protocol):
    """What all pipelines have."""

    @property
    def modules(self) -> tuple[nn.Module, ...]: ...
    def to(self, device: str) -> None: ...
    def pack(self, dtype: torch.dtype) -> None: ...


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files lie, and how they are to be loaded: the last two of a Flux model."""

    path: Path
    loras: Mapping[str, Path]
    placement: Placement | None
    max_tokens_at_once: int | None = None
    overlaps: bool = True  # see `ImageLimits`; as far as the memory is concerned


def parameters_of(pipeline: Pipeline) -> list[nn.Parameter]:
    return [each for module in pipeline.modules for each in module.parameters()]


def describe(
    spec: ModelSpec, files: ModelFiles, pipeline: Pipeline, packed: torch.dtype | None
) -> ModelCard:
    """Write the card of a model that was loaded from its files, and `packed` for such products."""
    path = files.path
    assert spec.task is not None, "this is a bug: `with_tasks` has not run"
    preset = PRESETS[spec.name] if spec.handle is None else None
    handle = spec.source if preset is None else preset.handle
    parameters = parameters_of(pipeline)
    properties = _flux_properties(pipeline)
    limits = None
    if properties is not None:
        overlaps = files.overlaps and _computes_beside(parameters[0].device)
        update = {"max_tokens_at_once": files.max_tokens_at_once, "overlaps": overlaps}
        limits = limits_of(spec, properties).model_copy(update=update)
    revision = path.name if _COMMIT.fullmatch(path.name) else _digest(path)
    device = str(parameters[0].device)
    dtype = str(packed or parameters[0].dtype).removeprefix("torch.")
    return ModelCard(
        name=spec.name,
        task=spec.task,
        family=detect(path).class_name,
        description=None if preset is None else preset.description,
        license=_license(path) if preset is None else preset.license,
        source=handle if HANDLE.fullmatch(handle) else None,
        revision=revision,
        results_digest=_results_digest(
            revision,
            files,
            limits,
            f"{parameters[0].dtype} {dtype}",  # between products, and of products
            device,
            execution_of(spec, device),
        ),
        num_parameters=sum(parameter.numel() for parameter in parameters),
        memory_bytes=sum(parameter.nbytes for parameter in parameters),
        dtype=dtype,
        device=device,
        image_limits=limits,
        labels=getattr(pipeline, "labels", None),
        embedding_width=getattr(pipeline, "embedding_width", None),
        max_tokens=getattr(pipeline, "max_tokens", None),
        num_special_tokens=getattr(pipeline, "num_special_tokens", None),
        vocabulary_size=getattr(pipeline, "vocabulary_size", None),
    )


def _flux_properties(pipeline: object) -> FluxProperties | None:
    if not hasattr(pipeline, "text_encoders"):
        return None
    paints = cast("TextToImage", pipeline)
    return FluxProperties(paints.has_guidance, paints.text_encoders.max_tokens)


def _computes_beside(device: torch.device) -> bool:
    """Whether a thread beside the loop's helps: on a CPU, where the loop leaves it a core."""
    return device.type != "cpu" or torch.get_num_threads() < _num_cores()


def _num_cores() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _license(path: Path) -> str | None:
    """Read it from the card that hubs keep beside a model, where that is there."""
    try:
        card = (path / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _LICENSE.search(card.partition("\n---")[0])
    return None if found is None else found[1]


def _results_digest(
    revision: str,
    files: ModelFiles,
    limits: ImageLimits | None,
    dtypes: str,
    device: str,
    execution: Execution,
) -> str:
    """Of what decides about results: on another GPU of the host, or streamed, they are the same."""
    loras = [f"{name} {_digest(path)}" for name, path in sorted(files.loras.items())]
    placement = files.placement or Placement()
    length = None if limits is None else limits.max_sequence_length
    kind = device.partition(":")[0]
    lossy = (execution.float8_products, execution.block_cache)
    parts = (revision, *loras, placement.float8, placement.tile_from, length, dtypes, kind, lossy)
    return hashlib.sha256(f"{software_digest()} {parts}".encode()).hexdigest()


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
