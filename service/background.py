"""Work that a process does again and again beside its requests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import NoReturn, TypeVar

from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CANCEL_AGAIN_S = 0.5


async def repeat(work: Callable[[], Awaitable[object]], pause_s: float, failure: str) -> NoReturn:
    """Do it until canceled; what it raises is logged as this event, and ends nothing."""
    while True:
        try:
            await work()
        except (RedisError, OSError) as error:  # Redis is away, or the disk full: for a while
            logger.warning("event=%s error=%s", failure, type(error).__name__)
        except Exception:
            logger.exception("event=%s", failure)
        await asyncio.sleep(pause_s)


async def end(tasks: Collection[asyncio.Future[T]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough: a client that is canceled just as its answer comes, or its time is over, may
    give that and forget the cancel, and the task would go on for ever.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)
