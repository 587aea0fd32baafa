"""From an entry of the configuration to a pipeline on the device and the card that describes it."""

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import torch
from torch import nn

from models.errors import PresetError
from models.flux.placement import Placement
from models.load import load_pipeline, pipeline_bytes
from models.presets import PRESETS
from models.presets.format_detection import detect, detect_task
from models.presets.handles import HANDLE, OnProgress, Part, fetch
from worker.contract.jobs import Task
from worker.contract.model_cards import ModelCard
from worker.device_memory import Memory, free_host_bytes
from worker.device_plan import Device, DevicePlan, Painting
from worker.device_plan import describe as describe_plan
from worker.device_plan import plan as plan_device
from worker.device_speed import measure_speed
from worker.eviction import Need
from worker.image_limits import FluxProperties, limits_of
from worker.loras import attach_loras, fetch_loras, num_bytes
from worker.model_specs import PRESET_TASKS, ModelSpec

if TYPE_CHECKING:  # its import is slow, and other queues' workers do without
    from models.flux.text_to_image import TextToImage

P_co = TypeVar("P_co", covariant=True)
Report = Callable[[str], None]  # takes what is known of the progress

_GB = 1e9
# Of a batch of classifications or embeddings: 32 images of ViT-L take a fifth of it in bfloat16.
_ROWS_WORK_BYTES = 2**30
_DIGESTED_BYTES = 2**20  # at each end of a file
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LICENSE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


logger = logging.getLogger(__name__)


class _Pipeline(Protocol):
    """What all pipelines have."""

    @property
    def modules(self) -> tuple[nn.Module, ...]: ...
    def to(self, device: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Loaded(Generic[P_co]):
    """A pipeline, and what is known of it."""

    pipeline: P_co
    card: ModelCard


class ModelLoader:
    """How models come to a device and leave it: what `residency` has done on a thread beside it."""

    def __init__(self, device: str, memory: Memory) -> None:
        self._device = device
        self._memory = memory
        self._plans: dict[str, DevicePlan] = {}  # of Flux models, by name

    def measure(self, spec: ModelSpec, report: Report) -> Need:
        """Fetch a model and say what it will take; `report` is called with what is known.

        Raises PresetError as `load_pipeline` does, and for a model of another task than was said.
        """
        path = _fetch(spec, report)
        lora_bytes = num_bytes(fetch_loras(spec, _download_report(report)))
        budget = self._memory.device_bytes
        if budget is None or spec.device not in (None, self._device):
            return Need(0)  # nothing has to make room for it
        if spec.task is Task.IMAGES:
            need = self._plan(spec, path, budget - lora_bytes).need
        else:
            need = Need(pipeline_bytes(path, _dtype(spec)), _ROWS_WORK_BYTES)
        return replace(need, weights_bytes=need.weights_bytes + lora_bytes)

    def load(self, spec: ModelSpec, report: Report) -> Loaded[object]:
        """Load and describe a model; raises PresetError likewise."""
        path = _fetch(spec, report)
        loras = fetch_loras(spec, _download_report(report))
        report("loading")
        pipeline = load_pipeline(
            path, spec.device or self._device, _dtype(spec), self._placement(spec)
        )
        if loras:
            attach_loras(spec, loras, cast("TextToImage", pipeline))
        return Loaded(pipeline, describe(spec, path, pipeline))

    def _plan(self, spec: ModelSpec, path: Path, device_bytes: int) -> DevicePlan:
        """Lay out a Flux model so that one image of its default size can be made."""
        from models.flux.sizes import read_sizes  # slow, and other queues' workers do without

        limits = limits_of(spec, FluxProperties(has_guidance=True, max_sequence_length=512))
        painting = Painting(
            limits.default_width, limits.default_height, 1, limits.max_sequence_length
        )
        sizes = read_sizes(path, _dtype(spec))
        speed = measure_speed(self._device)
        device = Device(device_bytes, free_host_bytes(), speed.flops_per_s, speed.copy_bytes_per_s)
        fixed = None if spec.placement is None else spec.placement.placement
        self._plans[spec.name] = plan = plan_device(sizes, device, painting, fixed)
        logger.info("event=device_plan %s", describe_plan(spec.name, plan, sizes, painting))
        return plan

    def _placement(self, spec: ModelSpec) -> Placement | None:
        if spec.name in self._plans:
            return self._plans[spec.name].placement
        return None if spec.placement is None else spec.placement.placement

    def to_host(self, loaded: Loaded[_Pipeline]) -> None:
        loaded.pipeline.to("cpu")

    def to_device(self, loaded: Loaded[_Pipeline]) -> None:
        loaded.pipeline.to(loaded.card.device)


def _download_report(report: Report) -> OnProgress:
    return lambda done, total: report(f"downloading {done / _GB:.1f} of {total / _GB:.1f} GB")


def _fetch(spec: ModelSpec, report: Report) -> Path:
    path = fetch(spec.source, Part.PIPELINE, _download_report(report))
    if spec.task is not (task := PRESET_TASKS[detect_task(path)]):
        raise PresetError(f"model {spec.name}: its task is {task}, not {spec.task}")
    return path


def _dtype(spec: ModelSpec) -> torch.dtype | None:
    return None if spec.dtype is None else cast(torch.dtype, getattr(torch, spec.dtype))


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
