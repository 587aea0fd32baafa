"""From an entry of the configuration to a pipeline on the device."""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import torch

from models.errors import PresetError
from models.execution.execution import EAGER
from models.flux.placement import Placement
from models.load import load_pipeline
from models.presets.format_detection import detect_task
from models.presets.handles import OnProgress, Part, fetch
from worker.contract.jobs import Task
from worker.contract.model_cards import ModelCard
from worker.device_memory import Memory
from worker.device_plan import Device, DevicePlan, ImageBatch
from worker.device_plan import describe as describe_plan
from worker.device_plan import plan as plan_device
from worker.device_speed import DeviceSpeed, measure_speed
from worker.eviction import MemoryNeed
from worker.host_memory import give_back_free_memory
from worker.image_limits import FluxProperties, limits_of
from worker.loras import attach_loras, fetch_loras, num_bytes
from worker.model_descriptions import ModelFiles, Pipeline, describe, parameters_of
from worker.model_specs import PRESET_TASKS, ModelSpec
from worker.precision import check_int8, dtype_of, execution_of, packed_dtype, paints_in_bfloat16

if TYPE_CHECKING:  # its import is slow, and other queues' workers do without
    from models.flux.text_to_image import TextToImage

P_co = TypeVar("P_co", covariant=True)
Report = Callable[[str], None]  # takes what is known of the progress

_GB = 1e9
# Values that live at once, of each of a row's tokens and of the model's width: the wide MLP, its
# GELU, and what attention and norms leave beside them.
_VALUES_PER_TOKEN = 16

logger = logging.getLogger(__name__)


class _RowPipeline(Pipeline, Protocol):
    """What classifiers and embedders have besides."""

    @property
    def features_per_row(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Loaded(Generic[P_co]):
    """A pipeline, and what is known of it."""

    pipeline: P_co
    card: ModelCard


class ModelLoader:
    """How models come to a device and leave it: what `residency` has done on other threads."""

    def __init__(self, device: str, memory: Memory, max_rows: int = 32) -> None:
        """`max_rows` of one forward, of classifications and embeddings."""
        self._device = device
        self._memory = memory
        self._max_rows = max_rows
        self._files: dict[str, ModelFiles] = {}  # as they were measured, by name

    def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:
        """Fetch a model and say what it will take; `report` is called with what is known.

        Raises PresetError as `load_pipeline` does, for a model of another task than was said, and
        for int8 where it cannot be had.
        """
        self._use_device()
        check_int8(spec, spec.device or self._device)
        path = _fetch(spec, report)
        loras = fetch_loras(spec, _download_report(report))
        lora_bytes = num_bytes(loras)
        placement = None if spec.placement is None else spec.placement.placement
        files = ModelFiles(path, loras, placement)
        if device_bytes is None or spec.device not in (None, self._device):
            need = MemoryNeed(0)  # nothing has to make room for it
        elif spec.task is Task.IMAGES:
            plan = self._plan(spec, path, device_bytes - lora_bytes, placement)
            files = ModelFiles(path, loras, plan.placement, plan.max_tokens, plan.overlaps)
            need = replace(plan.need, weights_bytes=plan.need.weights_bytes + lora_bytes)
        else:
            packed = packed_dtype(spec, spec.device or self._device)  # from float32
            need = self._need_of_rows(path, dtype_of(spec) if packed is None else torch.float32)
        self._files[spec.name] = files
        return need

    def load(self, spec: ModelSpec, report: Report) -> Loaded[object]:
        """Load and describe a model that was measured; raises PresetError likewise."""
        self._use_device()
        files = self._files[spec.name]
        report("loading")
        device = spec.device or self._device
        packed = packed_dtype(spec, device)
        dtype = dtype_of(spec) if packed is None else torch.float32
        pipeline = load_pipeline(files.path, device, dtype, files.placement)
        placement = files.placement or Placement()
        if paints_in_bfloat16(spec, placement, parameters_of(cast(Pipeline, pipeline))):
            packed = torch.bfloat16
        if packed is not None:
            cast(Pipeline, pipeline).pack(packed)
        if files.loras:
            attach_loras(spec, files.loras, cast("TextToImage", pipeline))
        execution = execution_of(spec, device)
        if execution != EAGER:
            report("compiling" if execution.compiles else "preparing")
            pipeline.execute(execution)
        give_back_free_memory()  # weights as they were before they were packed, cast or moved
        return Loaded(pipeline, describe(spec, files, pipeline, packed))

    def to_host(self, loaded: Loaded[Pipeline]) -> None:
        self._use_device()
        loaded.pipeline.to("cpu")

    def to_device(self, loaded: Loaded[Pipeline]) -> None:
        self._use_device()
        loaded.pipeline.to(loaded.card.device)

    def give_back(self) -> None:
        gc.collect()
        give_back_free_memory()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _need_of_rows(self, path: Path, dtype: torch.dtype | None) -> MemoryNeed:
        pipeline = cast(_RowPipeline, load_pipeline(path, "meta", dtype))
        parameters = parameters_of(pipeline)
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
        sizes, speed = read_sizes(path, dtype_of(spec)), self._speed
        device = Device(
            device_bytes, self._memory.host_bytes, speed.flops_per_s, speed.copy_bytes_per_s
        )
        plan = plan_device(sizes, device, largest, fixed)
        described = describe_plan(plan, sizes, device, usual)
        logger.info("event=device_plan model=%s plan=%s", spec.name, described)
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
