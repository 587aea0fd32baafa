"""The models of this worker: which are on the device, which come next, which leave.

One thread owns the device and calls this between batches, so nothing here is locked and no model
leaves while it works. What takes long (fetching, loading, moving) runs on one thread beside it, one
model at a time, while those that are resident serve on. `eviction` decides who leaves.
"""

import gc
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from rq.exceptions import StopRequested

from models.errors import PresetError
from worker.contract.model_cards import ModelCard
from worker.device_memory import Memory
from worker.eviction import Need, Resident, choose_victims, total_bytes
from worker.failures import (
    DeviceLostError,
    ModelUnusableError,
    NotServedError,
    is_device_lost,
)
from worker.loading import Loaded, Report
from worker.metrics import WorkerMetrics
from worker.model_specs import ModelSpec

P = TypeVar("P")
R = TypeVar("R")
_LONGEST_RETRY_S = 600.0
_GB = 1e9
_DIRECTORY = re.compile(r"(?<![:/\w.])/(?:[^/\s:]+/)+")

logger = logging.getLogger(__name__)


class Loader(Protocol[P]):
    """How models come and go. All of it runs on the thread beside; each call may take minutes."""

    def measure(self, spec: ModelSpec, report: Report) -> Need:
        """Fetch the files and say what the model will take; raises PresetError."""

    def load(self, spec: ModelSpec, report: Report) -> Loaded[P]:
        """Load and describe a model; raises PresetError."""

    def to_host(self, loaded: Loaded[P]) -> None:
        """Move a model from the device to the host's memory."""

    def to_device(self, loaded: Loaded[P]) -> None:
        """Move it back."""


class ModelEvents(Protocol):
    """Who is told how the models are."""

    def note_progress(self, model: str, progress: str) -> None: ...
    def note_resident(self, model: str, is_resident: bool) -> None: ...
    def announce_ready(self, card: ModelCard, load_s: float) -> None: ...
    def announce_failed(self, model: str, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """patience_s     for which models in use keep another from coming that has jobs
    first_retry_s  after a load that failed; doubled with every failure after it
    """

    patience_s: float = 5.0
    first_retry_s: float = 30.0


@dataclass(slots=True)
class _Model(Generic[P]):
    spec: ModelSpec
    last_used_at: float
    need: Need | None = None  # None: not measured yet
    loaded: Loaded[P] | None = None  # on the device, or in the host's memory
    is_resident: bool = False
    was_tried: bool = False
    wanted_since: float | None = None  # jobs wait for it
    failure: str | None = None
    num_failures: int = 0
    retry_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class _Task(Generic[P]):
    """What runs on the thread beside: measuring where `is_load` is not set."""

    model: _Model[P]
    is_load: bool
    started_at: float
    future: Future[None]


class Residency(Generic[P]):
    def __init__(
        self,
        specs: Sequence[ModelSpec],
        loader: Loader[P],
        metrics: WorkerMetrics,
        events: ModelEvents,
        memory: Memory,
        pace: Pace,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        # of those that no job has used yet the first leaves last: it is the default
        self._models = {
            spec.name: _Model[P](spec, last_used_at=-float(position))
            for position, spec in enumerate(specs)
        }
        self._loader = loader
        self._metrics = metrics
        self._events = events
        self._memory = memory
        self._pace = pace
        self._now = now
        self._task: _Task[P] | None = None
        self._warm_up: Callable[[str], None] | None = None
        if memory.device_bytes is not None:
            metrics.memory_budget.set(memory.device_bytes)

    def before_ready(self, warm_up: Callable[[str], None]) -> None:
        """Run this on every model that was loaded, before the first of its jobs."""
        self._warm_up = warm_up

    @property
    def names(self) -> tuple[str, ...]:
        """Every model of this worker's list."""
        return tuple(self._models)

    @property
    def takeable(self) -> tuple[str, ...]:
        """The models whose jobs can be run now, or ended with the reason why they cannot."""
        return tuple(
            name
            for name, model in self._models.items()
            if model.is_resident or model.failure is not None
        )

    @property
    def is_busy(self) -> bool:
        """Whether a model is being fetched, loaded or moved."""
        return self._task is not None

    def wait(self, timeout_s: float) -> None:
        """Wait until the model that is on its way is there, or the time is over."""
        if self._task is not None:
            wait([self._task.future], timeout_s)

    def idle_s(self) -> float:
        """How long there is nothing to do but for jobs: until the next retry."""
        retries = (m.retry_at for m in self._models.values() if m.failure is not None)
        return max(0.0, min(retries, default=math.inf) - self._now())

    def get(self, name: str) -> P:
        """The pipeline of a resident model.

        Raises ModelUnusableError for one that could not be loaded, NotServedError for one that is
        not of this worker.
        """
        return self._resident(name).pipeline

    def card(self, name: str) -> ModelCard:
        """The card of a resident model; raises likewise."""
        return self._resident(name).card

    def _resident(self, name: str) -> Loaded[P]:
        if name not in self._models:
            raise NotServedError(f"{name!r} is not one of {', '.join(self._models)}")
        model = self._models[name]
        if not model.is_resident or model.loaded is None:
            raise ModelUnusableError(f"{name}: {model.failure or 'not resident'}")
        model.last_used_at = self._now()
        return model.loaded

    def advance(self, waiting: Collection[str] = (), is_idle: bool = True) -> None:
        """Finish what is done, then begin what comes next; called between two batches.

        Raises DeviceLostError where the device failed under a model; the process is to end then.

        `waiting` are the models whose jobs cannot be taken yet; `is_idle` says that no job is there
        for those that are resident.
        """
        now = self._now()
        for name, model in self._models.items():
            is_waited_for = name in waiting
            model.wanted_since = (model.wanted_since or now) if is_waited_for else None
        while self._task is None or self._task.future.done():
            if self._task is not None:
                self._finish(self._task)
            self._begin_next(is_idle)
            if self._task is None:
                return

    def _begin_next(self, is_idle: bool) -> None:
        for model in self._candidates():
            if model.need is None:
                self._begin(model, is_load=False)
                return
            victims = self._victims_for(model)
            if victims is None:
                self._fail(model, PresetError(self._too_large(model.need)))
            elif not victims or is_idle or self._has_waited(model):
                self._make_room(victims)
                self._begin(model, is_load=True)
                return

    def _candidates(self) -> list[_Model[P]]:
        """Those that jobs wait for, the first of them first, then those that are not tried yet."""
        now = self._now()
        wanted = [
            model
            for model in self._models.values()
            if not model.is_resident
            and model.retry_at <= now
            and (model.wanted_since is not None or not model.was_tried or model.failure)
        ]
        return sorted(wanted, key=lambda m: math.inf if m.wanted_since is None else m.wanted_since)

    def _victims_for(self, model: _Model[P]) -> tuple[str, ...] | None:
        assert model.need is not None, "this is a bug: it was not measured"
        residents = {
            name: Resident(other.need, other.last_used_at, other.spec.pinned)
            for name, other in self._models.items()
            if other.is_resident and other.need is not None
        }
        return choose_victims(model.spec.name, model.need, self._memory.device_bytes, residents)

    def _has_waited(self, model: _Model[P]) -> bool:
        since = model.wanted_since
        return since is not None and self._now() - since >= self._pace.patience_s

    def _too_large(self, need: Need) -> str:
        assert self._memory.device_bytes is not None, "this is a bug: there is no limit"
        pinned = {
            name: model.need
            for name, model in self._models.items()
            if model.spec.pinned and model.need is not None and model.is_resident
        }
        beside = f" beside the pinned {', '.join(pinned)}" if pinned else ""
        return (
            f"it needs {(need.weights_bytes + need.work_bytes) / _GB:.2f} GB; the budget is "
            f"{(self._memory.device_bytes - total_bytes(pinned)) / _GB:.2f} GB{beside}"
        )

    def _make_room(self, victims: Sequence[str]) -> None:
        for name in victims:
            model = self._models[name]
            model.is_resident = False
            self._metrics.model_evictions.labels(name).inc()
            self._note_resident(model)

    def _begin(self, model: _Model[P], is_load: bool) -> None:
        report = self._report_of(model)
        leaving = [m for m in self._models.values() if m.loaded is not None and not m.is_resident]
        run = self._bring if is_load else self._measure
        self._task = _Task(
            model, is_load, time.perf_counter(), _in_background(lambda: run(model, leaving, report))
        )

    def _report_of(self, model: _Model[P]) -> Report:
        def report(progress: str) -> None:
            self._events.note_progress(model.spec.name, progress)

        return report

    def _measure(self, model: _Model[P], leaving: Sequence[_Model[P]], report: Report) -> None:
        del leaving
        model.need = self._loader.measure(model.spec, report)

    def _bring(self, model: _Model[P], leaving: Sequence[_Model[P]], report: Report) -> None:
        """On the thread beside: let others leave the device, and bring a model to it."""
        self._let_leave([other for other in leaving if other is not model])
        if model.loaded is None:
            model.loaded = self._loader.load(model.spec, report)
        else:
            self._loader.to_device(model.loaded)

    def _let_leave(self, leaving: Sequence[_Model[P]]) -> None:
        """Keep as many in the host's memory as fit there, those that were used last."""
        room = self._memory.host_bytes
        for model in sorted(leaving, key=lambda m: m.last_used_at, reverse=True):
            assert model.loaded is not None, "this is a bug: it has left already"
            assert model.need is not None, "this is a bug: it was not measured"
            room -= model.need.weights_bytes
            if room < 0 or not self._memory.host_bytes:
                model.loaded = None
            else:
                self._loader.to_host(model.loaded)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _finish(self, task: _Task[P]) -> None:
        self._task = None
        model = task.model
        try:
            task.future.result()
            if task.is_load:
                self._settle(model, time.perf_counter() - task.started_at)
        except StopRequested:  # by a signal, during the warm-up
            raise
        except Exception as error:  # one model that cannot be used must not stop the others
            if is_device_lost(error):
                raise DeviceLostError(f"the device failed on {model.spec.name}") from error
            model.loaded = None
            self._fail(model, error)

    def _settle(self, model: _Model[P], duration_s: float) -> None:
        assert model.loaded is not None, "this is a bug: nothing was loaded"
        name, is_first = model.spec.name, not model.was_tried or model.failure is not None
        model.is_resident = True
        if self._warm_up is not None and is_first:
            self._warm_up(name)
        model.was_tried, model.failure, model.num_failures = True, None, 0
        self._metrics.model_loads.labels(name, "succeeded").inc()
        self._metrics.model_load_duration.labels(name).observe(duration_s)
        self._note_resident(model)
        logger.info("event=model_loaded model=%s duration_s=%.2f", name, duration_s)
        if is_first:
            self._events.announce_ready(model.loaded.card, round(duration_s, 3))

    def _fail(self, model: _Model[P], error: Exception) -> None:
        name = model.spec.name
        model.is_resident, model.was_tried = False, True
        model.failure = _public(error)
        retry_s = min(self._pace.first_retry_s * 2**model.num_failures, _LONGEST_RETRY_S)
        model.retry_at = self._now() + retry_s
        model.num_failures += 1
        self._metrics.model_loads.labels(name, "failed").inc()
        self._note_resident(model)
        trace = None if isinstance(error, PresetError) else error
        logger.error("event=model_unusable model=%s retry_in_s=%.0f reason=%s", name, retry_s,
                     error, exc_info=trace)  # fmt: skip
        self._events.announce_failed(name, model.failure)

    def _note_resident(self, model: _Model[P]) -> None:
        self._metrics.model_resident.labels(model.spec.name).set(model.is_resident)
        self._events.note_resident(model.spec.name, model.is_resident)


def _public(error: Exception) -> str:
    """Say what clients may read: no directory of this host."""
    if not isinstance(error, PresetError):
        return type(error).__name__
    return _DIRECTORY.sub("", str(error))


def _in_background(work: Callable[[], None]) -> Future[None]:
    """Run on a daemon thread: a download that hangs must not keep the process from its end."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="loader", daemon=True).start()
    return future
