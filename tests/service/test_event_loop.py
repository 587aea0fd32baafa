"""The event loop says when it is late, and where it was."""

import asyncio
import logging
import time

import pytest

from service.event_loop import EventLoopMonitor
from service.metrics import Metrics

BLOCKED_S = 0.3


def compute_for_long() -> None:
    time.sleep(BLOCKED_S)


async def watch(monitor: EventLoopMonitor, *, work: bool) -> None:
    watching = asyncio.create_task(monitor.run())
    await asyncio.sleep(0.03)
    if work:
        compute_for_long()
    await asyncio.sleep(0.03)
    watching.cancel()


def num_late(metrics: Metrics) -> float:
    (lag,) = metrics.event_loop_lag.collect()
    of = {sample.labels.get("le"): sample.value for sample in lag.samples}
    return of["+Inf"] - of["0.1"]


def test_work_on_the_event_loop_is_counted_and_its_place_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> Metrics:
        metrics = Metrics()
        await watch(EventLoopMonitor(metrics), work=True)
        return metrics

    with caplog.at_level(logging.WARNING, "service.event_loop"):
        assert num_late(asyncio.run(run())) >= 1
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "event=event_loop_late ms=" in said
    assert "compute_for_long<test_event_loop.py" in said


def test_tasks_of_the_event_loop_are_counted() -> None:
    async def run() -> float:
        metrics = Metrics()
        await watch(EventLoopMonitor(metrics), work=False)
        (tasks,) = metrics.event_loop_tasks.collect()
        return tasks.samples[0].value

    assert asyncio.run(run()) == 2  # this one, and the monitor's
