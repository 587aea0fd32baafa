"""The pipelines that this worker holds: loaded on first use, kept from then on."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from models.errors import UnknownPresetError
from worker.metrics import WorkerMetrics

P = TypeVar("P")

logger = logging.getLogger(__name__)


class Residency(Generic[P]):
    """One thread owns the device and calls this; there is no lock."""

    def __init__(
        self, names: Sequence[str], load: Callable[[str], P], metrics: WorkerMetrics
    ) -> None:
        self._names = tuple(names)
        self._load = load
        self._metrics = metrics
        self._resident: dict[str, P] = {}

    def get(self, name: str) -> P:
        """The pipeline of a preset; PresetError if it is not served here or does not load."""
        if name not in self._names:
            allowed = ", ".join(self._names)
            raise UnknownPresetError(f"preset {name!r} is not one of {allowed}")
        if name not in self._resident:
            self._resident[name] = self._timed_load(name)
        return self._resident[name]

    def _timed_load(self, name: str) -> P:
        start = time.perf_counter()
        try:
            pipeline = self._load(name)
        except Exception:
            self._metrics.model_loads.labels(name, "failed").inc()
            raise
        duration_s = time.perf_counter() - start
        self._metrics.model_loads.labels(name, "succeeded").inc()
        self._metrics.model_load_duration.labels(name).observe(duration_s)
        self._metrics.model_resident.labels(name).set(1)
        logger.info("event=model_loaded model=%s duration_s=%.2f", name, duration_s)
        return pipeline
