"""When a child is started again, with processes that only pretend."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from triptych.child import Child, program


@dataclass(slots=True)
class Pretended:
    """A process that ends when a test says so."""

    pid: int
    status: int | None = None
    sentinel: int | None = None
    signals: list[int] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.status

    def send_signal(self, sig: int, /) -> None:
        self.signals.append(sig)


@dataclass(slots=True)
class Stage:
    """A child on a clock of its own, and all processes that it had."""

    clock_s: float = 0.0
    started: list[Pretended] = field(default_factory=list)
    num_deaths_told: int = 0
    fails_to_start: bool = False
    imports_done: threading.Event = field(default_factory=threading.Event)

    def child(self) -> Child:
        return Child("child", self._launch, self._note_death, now=lambda: self.clock_s)

    def child_of(self, thread: ThreadPoolExecutor) -> Child:
        return Child("child", self._launch_slowly, now=lambda: self.clock_s, launches_on=thread)

    def _launch_slowly(self) -> Pretended:
        assert self.imports_done.wait(60)
        return self._launch()

    def _launch(self) -> Pretended:
        if self.fails_to_start:
            raise OSError("no memory")
        self.started.append(Pretended(pid=len(self.started) + 1))
        return self.started[-1]

    def _note_death(self) -> None:
        self.num_deaths_told += 1

    def kill(self, after_s: float) -> None:
        self.clock_s += after_s
        self.started[-1].status = -9


def restart_pauses(stage: Stage, child: Child, lives_s: list[float]) -> list[float]:
    """How long after each of its deaths the child was started again."""
    pauses = []
    for life_s in lives_s:
        stage.kill(after_s=life_s)
        died_at, num_before = stage.clock_s, len(stage.started)
        child.keep_running()
        while len(stage.started) == num_before:
            stage.clock_s += 0.1
            child.keep_running()
        pauses.append(round(stage.clock_s - died_at, 1))
    return pauses


def test_a_child_that_ran_well_is_started_again_at_once() -> None:
    stage = Stage()
    child = stage.child()
    child.keep_running()
    assert restart_pauses(stage, child, [11.0, 3600.0]) == [0.0, 0.0]


def test_a_child_that_keeps_dying_waits_longer_each_time_until_it_has_run_well() -> None:
    stage = Stage()
    child = stage.child()
    child.keep_running()
    dying = restart_pauses(stage, child, [1.0] * 8)
    assert dying == pytest.approx([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0], abs=0.11)
    assert restart_pauses(stage, child, [11.0]) == [0.0]
    assert restart_pauses(stage, child, [1.0]) == pytest.approx([0.5], abs=0.11)


def test_each_death_is_told_once_and_before_the_next_start() -> None:
    stage = Stage()
    child = stage.child()
    child.keep_running()
    stage.kill(after_s=1.0)
    for _ in range(3):
        child.keep_running()
    assert (stage.num_deaths_told, len(stage.started)) == (1, 1)
    child.note_end()
    assert stage.num_deaths_told == 1


@pytest.mark.parametrize(("status", "num_told"), [(0, 0), (-9, 1)])
def test_an_end_for_good_is_told_where_it_was_none_by_itself(status: int, num_told: int) -> None:
    stage = Stage()
    child = stage.child()
    child.keep_running()
    stage.started[-1].status = status
    child.note_end()
    assert stage.num_deaths_told == num_told


def test_a_start_that_fails_is_tried_again() -> None:
    stage = Stage(fails_to_start=True)
    child = stage.child()
    child.keep_running()
    assert not child.is_running
    stage.fails_to_start = False
    child.keep_running()
    stage.clock_s += 0.6
    child.keep_running()
    assert child.is_running
    assert stage.num_deaths_told == 0  # nothing has lived


def test_a_program_that_is_not_there_is_a_start_that_fails() -> None:
    child = Child("child", program(["/no/such/program"]))
    child.keep_running()
    assert not child.is_running


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as executor:
        yield executor


def test_a_slow_launch_keeps_nobody_waiting_and_is_made_once(thread: ThreadPoolExecutor) -> None:
    stage = Stage()
    child = stage.child_of(thread)
    for _ in range(3):
        child.keep_running()
    assert not child.is_running
    stage.imports_done.set()
    thread.submit(int).result()  # behind the launch
    child.keep_running()
    assert child.is_running
    assert len(stage.started) == 1


def test_a_launch_that_is_not_wanted_any_more_is_not_waited_for(
    thread: ThreadPoolExecutor,
) -> None:
    stage = Stage()
    child = stage.child_of(thread)
    child.keep_running()
    child.send(signal.SIGTERM)
    child.note_end()
    assert not child.is_running
    stage.imports_done.set()
    thread.submit(int).result()
    assert [each.signals for each in stage.started] in ([], [[signal.SIGKILL]])
