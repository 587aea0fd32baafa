"""Which models are on the device: loading, leaving, coming back, failing."""

import itertools
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from models.errors import PresetFileError
from tests.worker.pipelines import WAIT_LIMIT_S, Silent, Tiny, TinyLoader, bring_all
from worker.contract.jobs import Task
from worker.contract.model_cards import ModelCard
from worker.device_memory import Memory
from worker.eviction import MemoryNeed
from worker.failures import DeviceLostError, ModelUnusableError, NotServedError
from worker.loading import Loaded, Report
from worker.metrics import WorkerMetrics
from worker.model_specs import ModelSpec
from worker.residency import ModelEvents, Residency
from worker.swap_policy import SwapPolicy

GB = 10**9


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Loader(TinyLoader):
    """Models of given sizes; never two at a time, which is asserted."""

    def __init__(self, **sizes_gb: float) -> None:
        super().__init__()
        self._sizes_gb = sizes_gb
        self._one_at_a_time = threading.Lock()

    def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:
        super().measure(spec, report, device_bytes)
        return MemoryNeed(int(self._sizes_gb[spec.name] * GB))

    def load(self, spec: ModelSpec, report: Report) -> Loaded[Tiny]:
        assert self._one_at_a_time.acquire(blocking=False), "two loads at a time"
        try:
            return super().load(spec, report)
        finally:
            self._one_at_a_time.release()


class Told(Silent):
    def __init__(self) -> None:
        self.ready: list[str] = []
        self.failed: list[tuple[str, str]] = []

    def announce_ready(self, card: ModelCard, load_s: float) -> None:
        assert load_s >= 0
        self.ready.append(card.name)

    def announce_failed(self, model: str, reason: str) -> None:
        self.failed.append((model, reason))


def specs_of(*names: str, pinned: tuple[str, ...] = ()) -> list[ModelSpec]:
    return [
        ModelSpec(name=name, handle="/x", task=Task.CLASSIFY, pinned=name in pinned)
        for name in names
    ]


def residency_of(
    loader: TinyLoader,
    *names: str,
    budget_gb: float | None = 10,
    host_gb: float = 0,
    pinned: tuple[str, ...] = (),
    events: ModelEvents | None = None,
    clock: Callable[[], float] | None = None,
    metrics: WorkerMetrics | None = None,
) -> Residency[Tiny]:
    memory = Memory(None if budget_gb is None else int(budget_gb * GB), int(host_gb * GB))
    residency = Residency(
        specs_of(*names, pinned=pinned),
        loader,
        metrics or WorkerMetrics(Task.IMAGES),
        events or Silent(),
        memory,
        SwapPolicy(patience_s=5, first_retry_s=30),
        clock or Clock(),
    )
    bring_all(residency)
    return residency


def use(residency: Residency[Tiny], clock: Clock, name: str) -> None:
    clock.time += 1
    residency.get(name)


def ask_for(residency: Residency[Tiny], name: str, is_idle: bool = True) -> None:
    """A job of a model waits; let what follows from it happen, until the model is there."""
    residency.advance([name], is_idle)
    while residency.is_busy:
        residency.wait(WAIT_LIMIT_S)
        residency.advance([] if name in residency.resident else [name], is_idle)


def test_a_model_is_held_as_it_was_loaded_and_warm_before_it_is_ready() -> None:
    loader, told = Loader(a=1, b=1), Told()
    residency: Residency[Tiny] = Residency(
        specs_of("a", "b"), loader, WorkerMetrics(Task.IMAGES), told, Memory(), SwapPolicy()
    )
    warm: list[str] = []
    residency.before_ready(lambda name: warm.append(residency.card(name).name))
    assert residency.resident == ()
    bring_all(residency)
    assert residency.resident == residency.names == ("a", "b")
    assert residency.get("a") is residency.get("a")
    assert told.ready == warm == ["a", "b"]
    assert loader.num_loads == {"a": 1, "b": 1}


def test_a_name_that_is_not_of_this_worker_is_refused() -> None:
    residency = residency_of(Loader(a=1), "a")
    with pytest.raises(NotServedError, match="'/etc' is not one of a"):
        residency.get("/etc")


def test_all_are_loaded_once_and_the_first_of_the_list_stays() -> None:
    loader, told = Loader(a=4, b=4, c=4), Told()
    residency = residency_of(loader, "a", "b", "c", events=told)
    assert told.ready == ["a", "b", "c"]
    assert residency.resident == ("a", "c")


def test_a_model_comes_back_for_its_jobs_and_the_least_recently_used_leaves() -> None:
    clock, loader, metrics = Clock(), Loader(a=4, b=4, c=4), WorkerMetrics(Task.IMAGES)
    residency = residency_of(loader, "a", "b", "c", clock=clock, metrics=metrics)
    use(residency, clock, "c")
    ask_for(residency, "b")
    assert residency.resident == ("b", "c")
    evicted = metrics.registry.get_sample_value("triptych_model_evictions_total", {"model": "a"})
    assert evicted == 1
    resident = {
        name: metrics.registry.get_sample_value("triptych_model_resident", {"model": name})
        for name in ("a", "b", "c")
    }
    assert resident == {"a": 0, "b": 1, "c": 1}


def test_a_pinned_model_never_leaves() -> None:
    residency = residency_of(Loader(a=4, b=4, c=4), "a", "b", "c", pinned=("c",))
    for name in ("a", "b", "a", "b"):
        ask_for(residency, name)
        assert residency.resident == (name, "c")


def test_the_default_comes_back_when_all_were_tried() -> None:
    loader = Loader(a=6, b=6)
    residency = residency_of(loader, "a", "b")
    assert residency.resident == ("a",)
    assert loader.num_loads == {"a": 2, "b": 1}


def test_models_in_use_keep_another_out_for_a_while_and_no_longer() -> None:
    clock = Clock()
    residency = residency_of(Loader(a=6, b=6), "a", "b", clock=clock)
    ask_for(residency, "b", is_idle=False)
    clock.time += 4.9
    ask_for(residency, "b", is_idle=False)
    assert residency.resident == ("a",)
    clock.time += 0.2
    ask_for(residency, "b", is_idle=False)
    assert residency.resident == ("b",)


def test_a_model_with_jobs_in_hand_gets_no_more_and_leaves_when_it_is_through() -> None:
    clock = Clock()
    residency = residency_of(Loader(a=4, b=4, c=4), "a", "b", "c", clock=clock)  # a and c are here
    residency.advance(["b"], is_idle=False, in_use=["a", "c"])
    assert set(residency.open_to_jobs) == {"a", "c"}
    clock.time += 5
    residency.advance(["b"], is_idle=False, in_use=["a", "c"])
    assert set(residency.open_to_jobs) == {"a"}
    assert (residency.resident, residency.is_busy) == (("a", "c"), False)
    residency.advance(["b"], is_idle=False, in_use=["a"])
    assert (residency.resident, residency.is_busy) == (("a",), True)


def test_who_is_to_leave_stays_chosen_while_its_last_jobs_use_it() -> None:
    clock = Clock()
    residency = residency_of(Loader(a=4, b=4, c=4), "a", "b", "c", clock=clock)
    residency.advance(["b"], is_idle=False, in_use=["a", "c"])
    clock.time += 5
    for _ in range(3):
        residency.advance(["b"], is_idle=False, in_use=["a", "c"])
        use(residency, clock, "c")
        assert residency.open_to_jobs == ("a",)


def test_a_model_that_is_not_waited_for_any_more_sends_nobody_away() -> None:
    clock = Clock()
    residency = residency_of(Loader(a=4, b=4, c=4), "a", "b", "c", clock=clock)
    residency.advance(["b"], is_idle=False, in_use=["a", "c"])
    clock.time += 5
    residency.advance(["b"], is_idle=False, in_use=["a", "c"])
    residency.advance([], is_idle=False, in_use=["a", "c"])
    assert residency.open_to_jobs == ("a", "c")


def test_two_models_that_always_have_jobs_take_turns() -> None:
    clock = Clock()
    residency = residency_of(Loader(a=8, b=8), "a", "b", clock=clock)
    turns: list[str] = []
    in_use: tuple[str, ...] = ()
    for _ in range(60):  # a second each, in which whatever was taken gets done
        clock.time += 1
        waiting = [name for name in residency.names if name not in residency.open_to_jobs]
        residency.advance(waiting, is_idle=False, in_use=in_use)
        residency.wait(WAIT_LIMIT_S)
        in_use = residency.open_to_jobs
        turns.extend(in_use)
    changes = sum(before != after for before, after in itertools.pairwise(turns))
    assert 4 <= changes <= 12
    assert turns.count("a") == pytest.approx(turns.count("b"), abs=8)


def test_a_model_that_takes_long_to_come_is_waited_for_longer() -> None:
    class Slow(Loader):
        def load(self, spec: ModelSpec, report: Report) -> Loaded[Tiny]:
            clock.time += 20
            return super().load(spec, report)

    clock = Clock()
    residency = residency_of(Slow(a=6, b=6), "a", "b", clock=clock)
    ask_for(residency, "b", is_idle=False)
    clock.time += 59  # three loads take 60 s
    ask_for(residency, "b", is_idle=False)
    assert residency.resident == ("a",)
    clock.time += 2
    ask_for(residency, "b", is_idle=False)
    assert residency.resident == ("b",)


def test_what_has_just_come_does_not_leave_before_its_jobs_were_looked_for() -> None:
    clock = Clock()
    residency = residency_of(Loader(a=6, b=6), "a", "b", clock=clock)
    residency.advance(["b"], is_idle=True)
    clock.time += 100
    for _ in range(3):  # `a` has waited for long meanwhile
        residency.wait(WAIT_LIMIT_S)
        residency.advance(["a", "b"], is_idle=False)
    assert residency.resident == ("b",)
    clock.time += 5.1
    ask_for(residency, "a", is_idle=False)
    assert residency.resident == ("a",)


def test_the_one_that_has_just_come_is_not_the_least_recently_used() -> None:
    clock = Clock()
    residency = residency_of(Loader(a=4, b=4, c=4), "a", "b", "c", clock=clock)
    use(residency, clock, "c")
    clock.time += 1
    ask_for(residency, "b")
    assert residency.resident == ("b", "c")
    clock.time += 1
    ask_for(residency, "a")
    assert residency.resident == ("a", "b")


def test_one_that_fits_beside_those_in_use_comes_at_once() -> None:
    residency = residency_of(Loader(a=6, b=7, c=3), "a", "b", "c")
    assert residency.resident == ("a", "c")
    ask_for(residency, "b")
    assert residency.resident == ("b", "c")


def test_others_serve_while_one_is_loaded() -> None:
    class Slow(Loader):
        def load(self, spec: ModelSpec, report: Report) -> Loaded[Tiny]:
            if spec.name == "b":
                assert self.go_on.wait(WAIT_LIMIT_S)
            return super().load(spec, report)

        go_on = threading.Event()

    loader = Slow(a=1, b=1)
    residency: Residency[Tiny] = Residency(
        specs_of("a", "b"), loader, WorkerMetrics(Task.IMAGES), Silent(), Memory(), SwapPolicy()
    )
    while not residency.resident:
        residency.advance()
        residency.wait(0.05)
    assert residency.is_busy
    assert residency.get("a") is not None
    with pytest.raises(ModelUnusableError, match="b: not resident"):
        residency.get("b")
    loader.go_on.set()
    bring_all(residency)
    assert residency.resident == ("a", "b")


def test_a_model_that_left_comes_back_from_the_hosts_memory_where_it_fits_there() -> None:
    loader = Loader(a=6, b=6)
    residency = residency_of(loader, "a", "b", host_gb=6)
    ask_for(residency, "b")
    assert loader.num_loads == {"a": 1, "b": 1}
    assert loader.moves == [
        ("a", "host"), ("b", "host"), ("a", "device"), ("a", "host"), ("b", "device"),
    ]  # fmt: skip


def test_a_model_that_fits_nowhere_is_loaded_anew_and_a_smaller_one_is_kept() -> None:
    clock, loader = Clock(), Loader(a=3, b=6, c=9)
    residency = residency_of(loader, "a", "b", "c", host_gb=5, clock=clock)
    use(residency, clock, "a")
    ask_for(residency, "c")
    assert loader.moves[-1] == ("a", "host")
    ask_for(residency, "a")
    ask_for(residency, "b")
    assert loader.num_loads == {"a": 1, "b": 2, "c": 2}


def test_what_is_streamed_counts_in_the_hosts_memory() -> None:
    class Streaming(Loader):
        def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:
            need = super().measure(spec, report, device_bytes)
            return replace(need, host_bytes=3 * GB)

    loader = Streaming(a=6, b=6)
    residency_of(loader, "a", "b", host_gb=8)
    assert loader.num_loads == {"a": 2, "b": 1}


def test_a_pinned_model_is_left_out_of_the_room_that_others_are_measured_for() -> None:
    class Asking(Loader):
        def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:
            rooms.append((spec.name, device_bytes))
            return super().measure(spec, report, device_bytes)

    rooms: list[tuple[str, int | None]] = []
    residency = residency_of(Asking(a=4, b=8, c=1), "a", "c", pinned=("a",))
    assert residency.resident == ("a", "c")
    assert rooms[0] == ("a", 10 * GB)
    assert rooms[1][0] == "c"


def test_a_download_that_hangs_keeps_no_other_model_out() -> None:
    class Hanging(Loader):
        def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:
            if spec.name == "c":
                assert self.hang.wait(WAIT_LIMIT_S)
            return super().measure(spec, report, device_bytes)

        hang = threading.Event()

    loader = Hanging(a=6, b=6, c=1)
    residency: Residency[Tiny] = Residency(
        specs_of("a", "b", "c"),
        loader,
        WorkerMetrics(Task.IMAGES),
        Silent(),
        Memory(10 * GB),
        SwapPolicy(),
    )
    for wanted in ("a", "b", "a"):
        while wanted not in residency.resident:
            residency.advance([wanted])
            residency.wait(0.05)
    assert residency.is_busy
    loader.hang.set()
    bring_all(residency)
    assert residency.resident == ("a", "c")


def test_a_model_that_is_larger_than_the_budget_is_unusable_and_says_so() -> None:
    told = Told()
    residency = residency_of(Loader(a=11, b=4), "a", "b", events=told)
    assert told.failed == [("a", "it needs 11.00 GB; the budget is 10.00 GB")]
    assert told.ready == ["b"]
    with pytest.raises(ModelUnusableError, match="a: it needs 11"):
        residency.get("a")


def test_a_model_that_does_not_fit_beside_the_pinned_ones_says_so() -> None:
    told = Told()
    residency_of(Loader(a=8, b=4), "a", "b", pinned=("a",), events=told)
    assert told.failed == [("b", "it needs 4.00 GB; the budget is 2.00 GB beside the pinned a")]


def test_a_failed_load_leaves_the_others_and_is_tried_again_ever_later() -> None:
    class Flaky(Loader):
        num_tries = 0

        def load(self, spec: ModelSpec, report: Report) -> Loaded[Tiny]:
            if spec.name == "b":
                self.num_tries += 1
                if self.num_tries <= 2:
                    raise PresetFileError("b/config.json is missing")
            return super().load(spec, report)

    clock, told, loader, metrics = Clock(), Told(), Flaky(a=1, b=1), WorkerMetrics(Task.IMAGES)
    residency = residency_of(loader, "a", "b", events=told, clock=clock, metrics=metrics)
    assert (residency.resident, residency.failed) == (("a",), ("b",))
    with pytest.raises(ModelUnusableError, match=r"b: b.config\.json is missing"):
        residency.get("b")
    assert residency.idle_s() == 30
    tries = []
    for _ in range(8):
        clock.time += 15
        bring_all(residency)
        tries.append(loader.num_tries)
    assert tries == [1, 2, 2, 2, 2, 3, 3, 3]
    assert told.ready == ["a", "b"]
    assert residency.get("b") is not None
    labels = {"model": "b", "outcome": "failed"}
    assert metrics.registry.get_sample_value("triptych_model_loads_total", labels) == 2.0


def test_a_model_that_fails_for_ever_does_not_throw_others_out_that_are_used() -> None:
    class Broken(Loader):
        def load(self, spec: ModelSpec, report: Report) -> Loaded[Tiny]:
            loaded = super().load(spec, report)
            if spec.name == "b":
                raise PresetFileError("b: LoRA ink does not fit")
            return loaded

    clock, loader = Clock(), Broken(a=6, b=6)
    residency = residency_of(loader, "a", "b", clock=clock)
    for _ in range(20):
        clock.time += 31
        residency.get("a")
        bring_all(residency)
    assert (loader.num_loads["b"], residency.resident) == (1, ("a",))
    clock.time += 61  # nobody needs a
    bring_all(residency)
    assert loader.num_loads["b"] == 2


def test_what_was_loaded_of_a_model_that_failed_is_let_go() -> None:
    class Half(Loader):
        def load(self, spec: ModelSpec, report: Report) -> Loaded[Tiny]:
            half = torch.zeros(3)
            kept.append(weakref.ref(half))
            report(f"{len(half)} numbers of {spec.name}")
            raise PresetFileError("the other half is missing")

    kept: list[weakref.ref[torch.Tensor]] = []
    residency_of(Half(a=1), "a")
    assert [reference() for reference in kept] == [None]


def test_a_device_that_failed_ends_the_worker() -> None:
    class OnLostDevice(Loader):
        def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:
            report(f"{spec.name} {device_bytes}")
            raise torch.AcceleratorError("an illegal memory access was encountered")

    with pytest.raises(DeviceLostError):
        residency_of(OnLostDevice(a=1), "a")


@pytest.mark.parametrize(
    ("error", "public"),
    [
        (PresetFileError("/srv/secret/flux/vae/config.json is missing"), "config.json is missing"),
        (PresetFileError("hf://a/b: no such file: x/y.json"), "hf://a/b: no such file: x/y.json"),
        (OSError("/etc/passwd: permission denied"), "OSError"),
    ],
)
def test_clients_read_why_without_a_directory_of_the_host(error: Exception, public: str) -> None:
    class Failing(Loader):
        def measure(self, spec: ModelSpec, report: Report, device_bytes: int | None) -> MemoryNeed:
            report(f"{spec.name} {device_bytes}")
            raise error

    told = Told()
    residency_of(Failing(a=1), "a", events=told)
    assert told.failed == [("a", public)]


def test_a_model_that_cannot_be_warmed_up_is_unusable() -> None:
    told = Told()
    residency: Residency[Tiny] = Residency(
        specs_of("a"), Loader(a=1), WorkerMetrics(Task.IMAGES), told, Memory(), SwapPolicy()
    )

    def warm_up(name: str) -> None:
        raise RuntimeError(f"no kernel for {name}")

    residency.before_ready(warm_up)
    bring_all(residency)
    assert told.failed == [("a", "RuntimeError")]
    with pytest.raises(ModelUnusableError):
        residency.get("a")
