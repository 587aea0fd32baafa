"""Every series that the API and the workers export, with its labels, from their own registries."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from unittest.mock import MagicMock

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from redis import Redis

from service.metrics import DiskCollector, Metrics
from service.queue_stats import QueueCollector
from tests import cards
from worker.contract.jobs import Task
from worker.gpu_metrics import AllocatorCollector, GpuCollector
from worker.metrics import WorkerMetrics

# What Prometheus adds to each series, and has of its own.
OF_TARGETS = frozenset({"instance", "job"})
_OF_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
_ENDINGS = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count"),
}


def exported(redis: Redis, directory: Path) -> Mapping[str, set[str]]:
    """The labels of each series by its name, on a Redis that has all that there is to tell of."""
    registries = [Metrics().registry, *(WorkerMetrics(task).registry for task in Task)]
    budgeted = WorkerMetrics(Task.IMAGES)
    budgeted.set_memory_budget(1)
    cards.publish(redis, *cards.SHAPES)
    at_scrape = (QueueCollector(redis), DiskCollector(directory), *_of_gpu())
    found = dict(_OF_PROMETHEUS)
    for registry in (*registries, budgeted.registry):
        found |= dict(_of_registry(registry))
    for collector in at_scrape:
        found |= dict(_of_samples(collector.collect()))
    return found


def _of_registry(registry: CollectorRegistry) -> Iterator[tuple[str, set[str]]]:
    """Also the series that have no sample yet, whose labels only the library itself knows."""
    for collector in registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            for family in collector.describe():
                for ending in _ENDINGS[family.type]:
                    own = {"le"} if ending == "_bucket" else set()
                    yield f"{family.name}{ending}", own | set(collector._labelnames)
        else:
            yield from _of_samples(collector.collect())


def _of_samples(families: Iterable[Metric]) -> Iterator[tuple[str, set[str]]]:
    for family in families:
        for sample in family.samples:
            yield sample.name, set(sample.labels)


def _of_gpu() -> tuple[GpuCollector, AllocatorCollector]:
    """As of a GPU that tells everything; the numbers do not matter."""
    nvml = MagicMock()
    nvml.NVMLError = RuntimeError
    return GpuCollector(nvml, "GPU-1"), AllocatorCollector("cuda:0", "GPU-1")
