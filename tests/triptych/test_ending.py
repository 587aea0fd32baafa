"""How children are ended, with processes that only pretend."""

import logging
import signal
import threading

import pytest

from tests.triptych.test_child import Stage
from triptych.ending import end


def test_a_child_that_survives_even_sigkill_is_told_and_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    child = stage.child()
    child.keep_running()
    with caplog.at_level(logging.ERROR):
        end([child], grace_s=0.0, hurry=threading.Event(), kill_timeout_s=0.1)
    assert stage.started[0].signals == [signal.SIGTERM, signal.SIGKILL]  # once each
    assert "event=not_dead child=child pid=1" in caplog.text


def test_a_hurry_ends_the_grace() -> None:
    stage, hurry = Stage(), threading.Event()
    child = stage.child()
    child.keep_running()
    hurry.set()
    end([child], grace_s=3600.0, hurry=hurry, kill_timeout_s=0.0)
    assert stage.started[0].signals == [signal.SIGTERM, signal.SIGKILL]


def test_the_death_of_one_that_goes_on_meanwhile_is_told() -> None:
    stage, others = Stage(), Stage()
    child, other = stage.child(), others.child()
    for each in (child, other):
        each.keep_running()
    others.kill(after_s=1.0)
    end([child], grace_s=0.0, hurry=threading.Event(), others=[other], kill_timeout_s=0.0)
    assert others.num_deaths_told == 1
