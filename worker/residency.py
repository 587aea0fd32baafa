"""The models that this worker holds: each is loaded once, at the start, and kept from then on."""

import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from worker.contract.model_cards import ModelCard
from worker.failures import NotServedError
from worker.loading import Loaded, Report
from worker.metrics import WorkerMetrics
from worker.model_specs import ModelSpec

P = TypeVar("P")

Load = Callable[[ModelSpec, Report], Loaded[P]]

logger = logging.getLogger(__name__)


class Residency(Generic[P]):
    """One thread owns the device and calls this; there is no lock."""

    def __init__(self, load: Load[P], metrics: WorkerMetrics) -> None:
        self._load = load
        self._metrics = metrics
        self._resident: dict[str, Loaded[P]] = {}

    def load(self, spec: ModelSpec, report: Report) -> float:
        """Load a model and say how many seconds it took; raises as `loading.load_model` does."""
        start = time.perf_counter()
        try:
            loaded = self._load(spec, report)
        except Exception:
            self._metrics.model_loads.labels(spec.name, "failed").inc()
            raise
        duration_s = time.perf_counter() - start
        self._metrics.model_loads.labels(spec.name, "succeeded").inc()
        self._metrics.model_load_duration.labels(spec.name).observe(duration_s)
        self._metrics.model_resident.labels(spec.name).set(1)
        logger.info("event=model_loaded model=%s duration_s=%.2f", spec.name, duration_s)
        self._resident[spec.name] = loaded
        return duration_s

    def unload(self, name: str) -> None:
        """Forget a model that was loaded and cannot be used."""
        if self._resident.pop(name, None) is not None:
            self._metrics.model_resident.labels(name).set(0)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._resident)

    def get(self, name: str) -> P:
        """The pipeline of a model; raises NotServedError for one that this worker does not hold."""
        return self._get(name).pipeline

    def card(self, name: str) -> ModelCard:
        """The card of a model; raises NotServedError likewise."""
        return self._get(name).card

    def _get(self, name: str) -> Loaded[P]:
        if name not in self._resident:
            raise NotServedError(f"{name!r} is not one of {', '.join(self.names)}")
        return self._resident[name]
