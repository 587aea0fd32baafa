"""What is done again and again survives whatever it meets."""

import asyncio
import logging

import pytest
from redis.exceptions import RedisError

from service.background import repeat


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
