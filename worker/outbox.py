"""What is to be written to Redis, kept in its order while Redis is away or refuses writes.

What Redis will never take is given up, alone. Knows nothing of what it is. Its owner sees to it
that one thread at a time calls it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from redis.exceptions import RedisError

from worker.redis_clients import is_unavailable

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Outbox(Generic[T]):
    """`write` takes any number at once; what it was given before, it must take again.

    `drop` is told of what cannot be written, and why.
    """

    def __init__(
        self, write: Callable[[Sequence[T]], None], drop: Callable[[T, RedisError], None]
    ) -> None:
        self._write = write
        self._drop = drop
        self._waiting: list[T] = []
        self._was_late = False

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def add(self, items: Sequence[T]) -> None:
        self._waiting += items

    def flush(self) -> None:
        """Write what waits; where that is not possible now, it waits on."""
        if not self._waiting:
            return
        num_waiting = len(self._waiting)
        try:
            self._write_all()
        except RedisError as error:
            if not is_unavailable(error):
                raise
            self._was_late = True
            return
        if self._was_late:
            logger.warning("event=written_late number=%d", num_waiting)
        self._was_late = False

    def _write_all(self) -> None:
        """All at once; where Redis refuses that for good, one by one."""
        try:
            self._write(self._waiting)
            self._waiting = []
        except RedisError as error:
            if is_unavailable(error):
                raise
            while self._waiting:
                self._write_or_drop(self._waiting[0])
                del self._waiting[0]

    def _write_or_drop(self, item: T) -> None:
        try:
            self._write([item])
        except RedisError as error:
            if is_unavailable(error):
                raise
            self._drop(item, error)
