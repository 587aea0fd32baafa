"""From an entry of the configuration to a pipeline on the device and the card that describes it."""

import gc
import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import torch
from torch import nn

from models.errors import PresetError
from models.execution.execution import EAGER, Execution, default_for
from models.flux.placement import Placement
from models.layers.onednn import multiplies
from models.layers.packing import has_fast_bfloat16
from models.load import load_pipeline
from models.presets import PRESETS
from models.presets.format_detection import detect, detect_task
from models.presets.handles import HANDLE, OnProgress, Part, fetch
from worker.contract.jobs import Task
from worker.contract.model_cards import ImageLimits, ModelCard
from worker.device_memory import Memory
from worker.device_plan import Device, DevicePlan, ImageBatch
from worker.device_plan import describe as describe_plan
from worker.device_plan import plan as plan_device
from worker.device_speed import DeviceSpeed, measure_speed
from worker.eviction import MemoryNeed
from worker.image_limits import FluxProperties, limits_of
from worker.loras import attach_loras, fetch_loras, num_bytes
from worker.model_specs import PRESET_TASKS, ModelSpec
from worker.software import software_digest

if TYPE_CHECKING:  # its import is slow, and other queues' workers do without
    from models.flux.text_to_image import TextToImage

P_co = TypeVar("P_co", covariant=True)
Report = Callable[[str], None]  # takes what is known of the progress

_GB = 1e9
# Values that live at once, of each of a row's tokens and of the model's width: the wide MLP, its
# GELU, and what attention and norms leave beside them.
_VALUES_PER_TOKEN = 16
_DIGESTED_BYTES = 2**20  # at each end of a file
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LICENSE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


logger = logging.getLogger(__name__)


class _Pipeline(Protocol):
    """What all pipelines have."""

    @property
    def modules(self) -> tuple[nn.Module, ...]: ...
    def to(self, device: str) -> None: ...


class _RowPipeline(_Pipeline, Protocol):
    """What classifiers and embedders have besides."""

    @property
    def features_per_row(self) -> int: ...
    def pack(self, dtype: torch.dtype) -> None: ...


@dataclass(frozen=True, slots=True)
class Loaded(Generic[P_co]):
    """A pipeline, and what is known of it."""

    pipeline: P_co
    card: ModelCard


@dataclass(frozen=True, slots=True)
class _Files:
    """Where a model's files lie, and how they are to be loaded: the last two of a Flux model."""

    path: Path
    loras: Mapping[str, Path]
    placement: Placement | None
    max_tokens_at_once: int | None = None
    overlaps: bool = True  # see `ImageLimits`; as far as the memory is concerned


class ModelLoader:
    """How models come to a device and leave it: what `residency` has done on other threads."""

    def __init__(self, device: str, memory: Memory, max_rows: int = 32) -> None:
        """`max_rows` of one forward, of classifications and embeddings."""
        self._device = device
        self._memory = memory
        self._max_rows = max_rows
        self._files: dict[str, _Files] = {}  # as they were measured, by name

    def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:
        """Fetch a model and say what it will take; `report` is called with what is known.

        Raises PresetError as `load_pipeline` does, and for a model of another task than was said.
        """
        self._use_device()
        path = _fetch(spec, report)
        loras = fetch_loras(spec, _download_report(report))
        lora_bytes = num_bytes(loras)
        placement = None if spec.placement is None else spec.placement.placement
        files = _Files(path, loras, placement)
        if device_bytes is None or spec.device not in (None, self._device):
            need = MemoryNeed(0)  # nothing has to make room for it
        elif spec.task is Task.IMAGES:
            plan = self._plan(spec, path, device_bytes - lora_bytes, placement)
            files = _Files(path, loras, plan.placement, plan.max_tokens, plan.overlaps)
            need = replace(plan.need, weights_bytes=plan.need.weights_bytes + lora_bytes)
        else:
            packed = _packed_dtype(spec, spec.device or self._device)  # from float32
            need = self._need_of_rows(path, _dtype(spec) if packed is None else torch.float32)
        self._files[spec.name] = files
        return need

    def load(self, spec: ModelSpec, report: Report) -> Loaded[object]:
        """Load and describe a model that was measured; raises PresetError likewise."""
        self._use_device()
        files = self._files[spec.name]
        report("loading")
        device = spec.device or self._device
        packed = _packed_dtype(spec, device)
        dtype = _dtype(spec) if packed is None else torch.float32
        pipeline = load_pipeline(files.path, device, dtype, files.placement)
        if packed is not None:
            cast(_RowPipeline, pipeline).pack(packed)
        if files.loras:
            attach_loras(spec, files.loras, cast("TextToImage", pipeline))
        execution = _execution(spec, device)
        if execution != EAGER:
            report("compiling" if execution.compiles else "preparing")
            pipeline.execute(execution)
        return Loaded(pipeline, describe(spec, files, pipeline))

    def to_host(self, loaded: Loaded[_Pipeline]) -> None:
        self._use_device()
        loaded.pipeline.to("cpu")

    def to_device(self, loaded: Loaded[_Pipeline]) -> None:
        self._use_device()
        loaded.pipeline.to(loaded.card.device)

    def give_back(self) -> None:
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _need_of_rows(self, path: Path, dtype: torch.dtype | None) -> MemoryNeed:
        pipeline = cast(_RowPipeline, load_pipeline(path, "meta", dtype))
        parameters = _parameters(pipeline)
        values = _VALUES_PER_TOKEN * self._max_rows * pipeline.features_per_row
        return MemoryNeed(sum(p.nbytes for p in parameters), values * parameters[0].itemsize)

    def _plan(
        self, spec: ModelSpec, path: Path, device_bytes: int, fixed: Placement | None
    ) -> DevicePlan:
        """Lay out a Flux model so that it has room for the largest image that it may make."""
        from models.flux.sizes import read_sizes  # slow, and other queues' workers do without

        limits = limits_of(spec, FluxProperties(has_guidance=True, max_sequence_length=512))
        length = limits.max_sequence_length
        largest = ImageBatch(limits.max_side, limits.max_pixels // limits.max_side, 1, length)
        usual = ImageBatch(limits.default_width, limits.default_height, 1, length)
        sizes, speed = read_sizes(path, _dtype(spec)), self._speed
        device = Device(
            device_bytes, self._memory.host_bytes, speed.flops_per_s, speed.copy_bytes_per_s
        )
        plan = plan_device(sizes, device, largest, fixed)
        described = describe_plan(plan, sizes, device, usual)
        logger.info("event=device_plan model=%s %s", spec.name, described)
        return plan

    @cached_property
    def _speed(self) -> DeviceSpeed:
        return measure_speed(self._device)

    def _use_device(self) -> None:
        """Each thread has its own current device, and begins with the first one."""
        if self._device != "cpu" and torch.cuda.is_available():
            torch.cuda.set_device(self._device)


def _download_report(report: Report) -> OnProgress:
    return lambda done, total: report(f"downloading {done / _GB:.1f} of {total / _GB:.1f} GB")


def _fetch(spec: ModelSpec, report: Report) -> Path:
    path = fetch(spec.source, Part.PIPELINE, _download_report(report))
    if spec.task is not (task := PRESET_TASKS[detect_task(path)]):
        raise PresetError(f"model {spec.name}: its task is {task}, not {spec.task}")
    return path


def _dtype(spec: ModelSpec) -> torch.dtype | None:
    return None if spec.dtype is None else cast(torch.dtype, getattr(torch, spec.dtype))


def _packed_dtype(spec: ModelSpec, device: str) -> torch.dtype | None:
    """Choose what a classifier or embedder on the CPU multiplies in; None: as any other model.

    Where nothing is said it is the fastest: bfloat16 changes no label and hardly an embedding.
    """
    if spec.task is Task.IMAGES or device != "cpu":
        return None
    dtype = _dtype(spec) or (torch.bfloat16 if has_fast_bfloat16() else torch.float32)
    return dtype if multiplies(dtype) else None


def _execution(spec: ModelSpec, device: str) -> Execution:
    return default_for(device) if spec.execution is None else spec.execution.execution


def _parameters(pipeline: _Pipeline) -> list[nn.Parameter]:
    return [each for module in pipeline.modules for each in module.parameters()]


def describe(spec: ModelSpec, files: _Files, pipeline: _Pipeline) -> ModelCard:
    """Write the card of a model that was loaded from its files."""
    path = files.path
    assert spec.task is not None, "this is a bug: `with_tasks` has not run"
    preset = PRESETS[spec.name] if spec.handle is None else None
    handle = spec.source if preset is None else preset.handle
    parameters = _parameters(pipeline)
    properties = _flux_properties(pipeline)
    limits = None
    if properties is not None:
        overlaps = files.overlaps and _computes_beside(parameters[0].device)
        update = {"max_tokens_at_once": files.max_tokens_at_once, "overlaps": overlaps}
        limits = limits_of(spec, properties).model_copy(update=update)
    revision = path.name if _COMMIT.fullmatch(path.name) else _digest(path)
    device = str(parameters[0].device)
    dtype = str(_packed_dtype(spec, device) or parameters[0].dtype).removeprefix("torch.")
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
            _execution(spec, device),
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
    files: _Files,
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
