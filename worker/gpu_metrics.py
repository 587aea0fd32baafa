"""What the GPU of this worker says of itself, read at each scrape: by NVML, and by torch.

What a GPU does not tell is absent, not 0. Several workers may share one and say the same of it, so
its label is NVML's UUID, which is the same for all. Knows nothing of models and jobs.
https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A metric, and how to ask for it; `ask` raises NVMLError where this GPU does not tell."""

    name: str
    text: str
    ask: Callable[[], float]
    is_counter: bool = False

    def family(self, uuid: str, value: float) -> Metric:
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        family = kind(f"triptych_gpu_{self.name}", self.text, labels=["gpu"])
        family.add_metric([uuid], value)
        return family


class GpuCollector(Collector):
    """The series of NVML, each where the GPU has it."""

    def __init__(self, nvml: ModuleType, uuid: str) -> None:
        """`nvml` is the module `pynvml`; raises its NVMLError where there is no such GPU."""
        nvml.nvmlInit()
        self._nvml, self._uuid = nvml, uuid
        self._readings = _readings(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))

    def collect(self) -> Iterator[Metric]:
        for reading in self._readings:
            try:
                value = reading.ask()
            except self._nvml.NVMLError:
                continue
            yield reading.family(self._uuid, value)


class AllocatorCollector(Collector):
    """What torch's allocator of this process has of the GPU."""

    def __init__(self, device: str, uuid: str) -> None:
        self._uuid = uuid
        self._readings = (
            _Reading(
                "memory_reserved_bytes",
                "Of the device's memory, what this process's allocator holds.",
                lambda: torch.cuda.memory_reserved(device),
            ),
            _Reading(
                "memory_peak_bytes",
                "The most that this process's tensors have taken.",
                lambda: torch.cuda.max_memory_allocated(device),
            ),
        )

    def collect(self) -> Iterator[Metric]:
        for reading in self._readings:
            yield reading.family(self._uuid, reading.ask())


def gpu_collectors(device: str) -> Iterator[Collector]:
    """All for a CUDA device; without NVML, or where it does not know the GPU, what torch says."""
    import pynvml  # for CUDA alone

    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    yield AllocatorCollector(device, uuid)
    try:
        yield GpuCollector(pynvml, uuid)
    except pynvml.NVMLError as error:
        logger.warning("event=gpu_metrics_unavailable gpu=%s reason=%s", uuid, error)


def _readings(nvml: ModuleType, gpu: object) -> tuple[_Reading, ...]:
    return (
        _Reading(
            "memory_used_bytes",
            "Of the device's memory, what all processes have.",
            lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
        ),
        _Reading(
            "memory_total_bytes",
            "The device's memory.",
            lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
        ),
        _Reading(
            "utilization_ratio",
            "Of the last second or less, the part in which some kernel ran.",
            lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
        ),
        _Reading("power_watts", "What it draws.", lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
        _Reading(
            "temperature_celsius",
            "Of the chip.",
            lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        ),
        _Reading(
            "energy_joules",
            "What it has taken since its driver was loaded.",
            lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
            is_counter=True,
        ),
        _Reading(
            "ecc_errors",
            "Errors of its memory that were not corrected, since its driver was loaded.",
            lambda: nvml.nvmlDeviceGetTotalEccErrors(
                gpu, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            ),
            is_counter=True,
        ),
    )
