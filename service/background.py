"""Work that a process does again and again beside its requests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


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
