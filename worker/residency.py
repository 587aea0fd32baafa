"""The models of this worker: which are on the device, which come next, which leave.

One thread owns the device and calls this between two pieces of work, so nothing here is locked;
others only `get` what is resident. No model leaves while it has jobs in hand: one that is to leave
gets no more of them. What takes long runs on threads beside it: one fetches and measures, one loads
and moves, each one model at a time, while those that are resident serve on. `eviction` decides who
leaves, `swap_policy` when.
"""

import logging
import math
import re
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rq.exceptions import StopRequested

from models.errors import PresetError
from worker.background import run_in_background
from worker.contract.model_cards import ModelCard
from worker.device_memory import Memory
from worker.eviction import MemoryNeed, Resident, choose_victims
from worker.failures import (
    DeviceLostError,
    ModelUnusableError,
    NotServedError,
    is_device_lost,
)
from worker.loading import Loaded, Report
from worker.metrics import WorkerMetrics
from worker.model_specs import ModelSpec
from worker.swap_policy import SwapPolicy, Wish

P = TypeVar("P")
_GB = 1e9
_DIRECTORY = re.compile(r"(?<![:/\w.])/(?:[^/\s:]+/)+")

logger = logging.getLogger(__name__)


class Loader(Protocol[P]):
    """How models come and go. Each call may take minutes, on a thread beside the device's own."""

    def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:
        """Fetch the files and say what the model will take of so much; raises PresetError."""

    def load(self, spec: ModelSpec, report: Report) -> Loaded[P]:
        """Load and describe a model that was measured; raises PresetError."""

    def to_host(self, loaded: Loaded[P]) -> None:
        """Move a model from the device to the host's memory."""

    def to_device(self, loaded: Loaded[P]) -> None:
        """Move it back."""

    def give_back(self) -> None:
        """Let other processes have what models that left have had."""


class ModelEvents(Protocol):
    """Who is told how the models are."""

    def note_progress(self, model: str, progress: str) -> None: ...
    def note_resident(self, model: str, is_resident: bool) -> None: ...
    def announce_ready(self, card: ModelCard, load_s: float) -> None: ...
    def announce_failed(self, model: str, reason: str) -> None: ...


@dataclass(slots=True)
class _Model(Generic[P]):
    spec: ModelSpec
    last_used_at: float
    need: MemoryNeed | None = None  # None: to be measured
    loaded: Loaded[P] | None = None  # on the device, or in the host's memory
    is_resident: bool = False
    was_tried: bool = False
    wanted_since: float | None = None  # jobs wait for it
    load_s: float = 0.0  # how long it took to come the last time
    came_at: float = -math.inf
    failure: str | None = None
    num_failures: int = 0
    retry_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class _Operation(Generic[P]):
    """What runs on a thread for a model."""

    model: _Model[P]
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
        policy: SwapPolicy,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        # of those that no job has used yet the first leaves last: it is the default
        self._models = {
            spec.name: _Model[P](spec, last_used_at=-float(position + 1))
            for position, spec in enumerate(specs)
        }
        self._loader = loader
        self._metrics = metrics
        self._events = events
        self._memory = memory
        self._policy = policy
        self._now = now
        self._measuring: _Operation[P] | None = None
        self._loading: _Operation[P] | None = None
        self._leaving: tuple[str, ...] = ()  # once they are through with their jobs
        self._is_default_settled = False
        self._warm_up: Callable[[str], None] | None = None
        if memory.device_bytes is not None:
            metrics.set_memory_budget(memory.device_bytes)

    def before_ready(self, warm_up: Callable[[str], None]) -> None:
        """Run this on every model that was loaded, before the first of its jobs."""
        self._warm_up = warm_up

    @property
    def names(self) -> tuple[str, ...]:
        """Every model of this worker's list."""
        return tuple(self._models)

    @property
    def resident(self) -> tuple[str, ...]:
        """The models that are on the device."""
        return tuple(name for name, model in self._models.items() if model.is_resident)

    @property
    def open_to_jobs(self) -> tuple[str, ...]:
        """The models whose jobs can be taken now: the resident ones but for those that leave."""
        return tuple(name for name in self.resident if name not in self._leaving)

    @property
    def failed(self) -> tuple[str, ...]:
        """The models that could not be loaded: their jobs can be ended with the reason."""
        return tuple(name for name, model in self._models.items() if model.failure is not None)

    @property
    def is_busy(self) -> bool:
        """Whether a model is being fetched, loaded or moved."""
        return bool(self._operations)

    @property
    def _operations(self) -> list[_Operation[P]]:
        return [each for each in (self._measuring, self._loading) if each is not None]

    def wait(self, timeout_s: float) -> None:
        """Wait until something that is under way is done, or the time is over."""
        futures = [operation.future for operation in self._operations]
        wait(futures, timeout_s, return_when="FIRST_COMPLETED")

    def idle_s(self) -> float:
        """How long there is nothing to do but for jobs: until the next retry."""
        if self._candidates():
            return 0.0
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

    def advance(
        self,
        waiting: Collection[str] = (),
        is_idle: bool = True,
        in_use: Collection[str] = (),
    ) -> None:
        """Finish what is done, then begin what comes next; called between two pieces of work.

        Raises DeviceLostError where the device failed under a model; the process is to end then.

        waiting  the models whose jobs cannot be taken yet
        is_idle  no job is there for those that are resident
        in_use   those with jobs in hand: they stay
        """
        now = self._now()
        for name, model in self._models.items():
            is_waited_for = name in waiting
            model.wanted_since = (model.wanted_since or now) if is_waited_for else None
        self._finish_measuring()
        # the jobs of a model that has just come were not looked for yet: it does not leave before
        is_idle = not self._finish_loading() and is_idle
        self._is_default_settled |= self._is_default_back()
        self._begin_measuring()
        self._begin_loading(is_idle, in_use)

    def _is_default_back(self) -> bool:
        """Whether all were tried, and the first of the list is there afterwards."""
        models = list(self._models.values())
        is_there = models[0].is_resident or models[0].failure is not None
        return is_there and all(model.was_tried for model in models)

    def _begin_measuring(self) -> None:
        if self._measuring is not None:
            return
        for model in self._candidates():
            if model.need is None and not self._is_under_way(model):
                self._measuring = self._begin(model, self._measure)
                return

    def _begin_loading(self, is_idle: bool, in_use: Collection[str]) -> None:
        if self._loading is not None:
            return
        leaving: tuple[str, ...] = ()
        for model in self._candidates():
            if model.need is None or self._is_under_way(model):
                continue
            victims = self._victims_for(model, model.need)
            if victims is None:
                self._fail(model, PresetError(self._too_large(model, model.need)))
            elif not victims or self._may_leave(victims, model, is_idle):
                if any(name in in_use for name in victims):
                    leaving = victims
                else:
                    self._make_leave(victims)
                    self._loading = self._begin(model, self._load)
                break
        self._leaving = leaving

    def _is_under_way(self, model: _Model[P]) -> bool:
        return any(operation.model is model for operation in self._operations)

    def _candidates(self) -> list[_Model[P]]:
        """Those that jobs wait for, the first of them first, then those that are to be tried."""
        now = self._now()
        wanted = [
            model
            for model in self._models.values()
            if not model.is_resident
            and model.retry_at <= now
            and (model.wanted_since is not None or not model.was_tried or model.failure is not None)
        ]
        wanted.sort(key=lambda m: math.inf if m.wanted_since is None else m.wanted_since)
        if wanted or self._is_default_settled:
            return wanted
        # all are tried: the default comes back once, if another has taken its place
        default = next(iter(self._models.values()))
        return [] if default.is_resident or default.failure is not None else [default]

    def _victims_for(self, model: _Model[P], need: MemoryNeed) -> tuple[str, ...] | None:
        residents = {
            name: Resident(other.need, self._last_used_at(other), other.spec.pinned)
            for name, other in self._models.items()
            if other.is_resident and other.need is not None
        }
        return choose_victims(model.spec.name, need, self._memory.device_bytes, residents)

    def _last_used_at(self, model: _Model[P]) -> float:
        """Count those that are to leave as unused: the choice stays while their jobs end."""
        return -math.inf if model.spec.name in self._leaving else model.last_used_at

    def _may_leave(self, victims: Sequence[str], model: _Model[P], is_idle: bool) -> bool:
        leaving = [self._models[name] for name in victims]
        wish = Wish(
            wanted_since=model.wanted_since,
            load_s=model.load_s,
            has_failed=model.failure is not None,
            came_at=max(each.came_at for each in leaving),
            last_used_at=max(each.last_used_at for each in leaving),
        )
        return self._policy.may_leave(wish, is_idle, self._now())

    def _too_large(self, model: _Model[P], need: MemoryNeed) -> str:
        pinned = ", ".join(other.spec.name for other in self._pinned_beside(model))
        room = self._room_for(model)
        assert room is not None, "this is a bug: there is no limit"
        return (
            f"it needs {(need.weights_bytes + need.work_bytes) / _GB:.2f} GB; the budget is "
            f"{room / _GB:.2f} GB{f' beside the pinned {pinned}' if pinned else ''}"
        )

    def _room_for(self, model: _Model[P]) -> int | None:
        """What a model can have of the device once all have left that may."""
        if self._memory.device_bytes is None:
            return None
        pinned = (other.need for other in self._pinned_beside(model))
        taken = sum(need.weights_bytes for need in pinned if need is not None)
        return max(0, self._memory.device_bytes - taken)

    def _pinned_beside(self, model: _Model[P]) -> list[_Model[P]]:
        return [
            other
            for other in self._models.values()
            if other.is_resident and other.spec.pinned and other is not model
        ]

    def _make_leave(self, victims: Sequence[str]) -> None:
        for name in victims:
            model = self._models[name]
            model.is_resident = False
            self._metrics.model_evictions.labels(name).inc()
            self._note_resident(model)

    def _begin(self, model: _Model[P], work: Callable[[_Model[P], Report], None]) -> _Operation[P]:
        def report(progress: str) -> None:
            self._events.note_progress(model.spec.name, progress)

        started_at = self._now()
        return _Operation(model, started_at, run_in_background(lambda: work(model, report)))

    def _measure(self, model: _Model[P], report: Report) -> None:
        model.need = self._loader.measure(model.spec, report, self._room_for(model))

    def _load(self, model: _Model[P], report: Report) -> None:
        """Let others leave the device, and bring a model to it."""
        self._evict([m for m in self._models.values() if not m.is_resident and m is not model])
        if model.loaded is None:
            model.loaded = self._loader.load(model.spec, report)
        else:
            self._loader.to_device(model.loaded)

    def _evict(self, leaving: Sequence[_Model[P]]) -> None:
        """Keep as many in the host's memory as fit there, those that were used last."""
        room = self._memory.host_bytes - self._streamed_bytes()
        for model in sorted(leaving, key=lambda m: m.last_used_at, reverse=True):
            if model.loaded is None or model.need is None:
                continue
            if model.need.weights_bytes <= room:
                room -= model.need.weights_bytes
                self._loader.to_host(model.loaded)
            else:
                model.loaded = None
        self._loader.give_back()

    def _streamed_bytes(self) -> int:
        loaded = (m.need for m in self._models.values() if m.loaded is not None)
        return sum(need.host_bytes for need in loaded if need is not None)

    def _finish_measuring(self) -> None:
        operation = self._measuring
        if operation is None or not operation.future.done():
            return
        self._measuring = None
        if (error := operation.future.exception()) is not None:
            self._fail(operation.model, error)

    def _finish_loading(self) -> bool:
        """Say whether a load has ended, however it did."""
        operation = self._loading
        if operation is None or not operation.future.done():
            return False
        self._loading = None
        model, error = operation.model, operation.future.exception()
        if error is None:
            model.load_s = self._now() - operation.started_at
            error = self._make_ready(model)
        if error is not None:
            self._fail(model, error)
        return True

    def _make_ready(self, model: _Model[P]) -> Exception | None:
        """Warm a model up, if it is new, and take its jobs from now on; says why not."""
        assert model.loaded is not None, "this is a bug: nothing was loaded"
        name, card = model.spec.name, model.loaded.card
        is_new = not model.was_tried or model.failure is not None
        model.is_resident, model.came_at = True, self._now()
        if model.wanted_since is not None:
            model.last_used_at = model.came_at
        try:
            if self._warm_up is not None and is_new:
                self._warm_up(name)
        except StopRequested:  # by a signal
            raise
        except Exception as error:  # one model that cannot be used must not stop the others
            return error
        model.was_tried, model.failure, model.num_failures = True, None, 0
        self._metrics.model_loads.labels(name, "succeeded").inc()
        self._metrics.model_load_duration.labels(name).observe(model.load_s)
        self._note_resident(model)
        logger.info("event=model_loaded model=%s duration_s=%.2f", name, model.load_s)
        self._events.announce_ready(card, round(model.load_s, 3))
        return None

    def _fail(self, model: _Model[P], error: BaseException) -> None:
        if is_device_lost(error):
            raise DeviceLostError(f"the device failed on {model.spec.name}") from error
        name = model.spec.name
        model.is_resident, model.was_tried, model.loaded, model.need = False, True, None, None
        model.failure = _public(error)
        retry_s = self._policy.retry_s(model.num_failures)
        model.retry_at = self._now() + retry_s
        model.num_failures += 1
        self._metrics.model_loads.labels(name, "failed").inc()
        self._metrics.note_error(name, error)
        self._note_resident(model)
        trace = None if isinstance(error, PresetError) else error
        logger.error("event=model_unusable model=%s retry_in_s=%.0f reason=%s", name, retry_s,
                     error, exc_info=trace)  # fmt: skip
        self._events.announce_failed(name, model.failure)
        traceback.clear_frames(error.__traceback__)  # they hold what was loaded of the model
        self._loader.give_back()

    def _note_resident(self, model: _Model[P]) -> None:
        self._metrics.model_resident.labels(model.spec.name).set(model.is_resident)
        self._events.note_resident(model.spec.name, model.is_resident)


def _public(error: BaseException) -> str:
    """Say what clients may read: no directory of this host."""
    if not isinstance(error, PresetError):
        return type(error).__name__
    return _DIRECTORY.sub("", str(error))
