"""What a GPU says of itself, told by a stand-in for NVML: there is no GPU where tests run."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import cast

import pynvml
import pytest
from prometheus_client import CollectorRegistry

from tests.exposition import assert_keeps_the_rules, samples_in
from worker.gpu_metrics import GpuCollector

UUID = "GPU-5b1b8f0e-6d6c-4b7c-9a55-6f1f5a0f7b11"


def refuse(*_: object) -> float:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def registry_of(**refused: Callable[..., float]) -> CollectorRegistry:
    """Of a GPU under load; some of what NVML has may be told to refuse."""
    memory = SimpleNamespace(used=60 * 2**30, total=80 * 2**30)
    told = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetMemoryInfo": lambda gpu: memory,  # noqa: ARG005
        "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=87),  # noqa: ARG005
        "nvmlDeviceGetPowerUsage": lambda gpu: 612_345,  # noqa: ARG005
        "nvmlDeviceGetTemperature": lambda gpu, sensor: 61,  # noqa: ARG005
        "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: 9_000_500,  # noqa: ARG005
        "nvmlDeviceGetTotalEccErrors": lambda gpu, kind, counter: 0,  # noqa: ARG005
    }
    constants = ("NVML_TEMPERATURE_GPU", "NVML_MEMORY_ERROR_TYPE_UNCORRECTED", "NVML_VOLATILE_ECC")
    known = {name: getattr(pynvml, name) for name in (*constants, "NVMLError")}
    nvml = SimpleNamespace(**{**told, **known, **refused})
    registry = CollectorRegistry()
    registry.register(GpuCollector(cast(ModuleType, nvml), UUID))
    return registry


def test_every_function_that_is_asked_is_one_of_nvml() -> None:
    for name in ("Init", "DeviceGetHandleByUUID", "DeviceGetTotalEccErrors"):
        assert callable(getattr(pynvml, f"nvml{name}"))


def test_a_gpu_tells_all_in_base_units_by_its_uuid() -> None:
    assert samples_in(registry_of()) == {
        f"triptych_gpu_{name}{{gpu={UUID}}}": value
        for name, value in {
            "memory_used_bytes": 60 * 2**30,
            "memory_total_bytes": 80 * 2**30,
            "utilization_ratio": 0.87,
            "power_watts": 612.345,
            "temperature_celsius": 61,
            "energy_joules_total": 9000.5,
            "ecc_errors_total": 0,
        }.items()
    }
    assert_keeps_the_rules(registry_of())


def test_what_a_gpu_does_not_tell_is_absent_and_not_0() -> None:
    values = samples_in(
        registry_of(nvmlDeviceGetTotalEccErrors=refuse, nvmlDeviceGetTotalEnergyConsumption=refuse)
    )
    assert len(values) == 5
    assert not [name for name in values if "ecc" in name or "energy" in name]


def test_a_gpu_that_nvml_does_not_know_is_an_error_to_be_told() -> None:
    with pytest.raises(pynvml.NVMLError):
        GpuCollector(pynvml, UUID)
