"""What is done again and again survives whatever it meets, and ends when it is to end."""

import asyncio
import logging

import pytest
from redis.exceptions import RedisError

from service.background import end, repeat


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (RedisError("away"), logging.WARNING),
        (OSError("full"), logging.WARNING),
        (ValueError("a bug"), logging.ERROR),
    ],
)
def test_work_that_fails_is_logged_and_done_again(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        is_done = asyncio.Event()
        failures = [error]

        async def work() -> None:
            if failures:
                raise failures.pop()
            is_done.set()

        task = asyncio.create_task(repeat(work, 0.0, "not_done"))
        await is_done.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(run())
    [line] = caplog.records
    assert line.levelno == level
    assert line.getMessage().startswith("event=not_done")


def test_a_cancel_that_a_client_forgot_is_given_again() -> None:
    async def forget_a_cancel() -> None:
        """Do as a client that is canceled just as its answer comes."""
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async def run() -> None:
        tasks = [asyncio.create_task(repeat(forget_a_cancel, 60.0, "not_done")) for _ in range(2)]
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await end(tasks)
        assert all(task.cancelled() for task in tasks)

    asyncio.run(run())
