"""How long a worker's clients of Redis wait for it, and which errors mean that it will be back.

None tries for long by itself: who calls goes on with what is in hand, and comes again.
"""

import logging
import math
import time
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from worker.contract.redis_refusals import refusal_of

SOON_S = 1.0  # until a server that was away is asked again, and for which a step may wait
_WARNING_S = 5.0  # between two lines that say the same
_CONNECT_TIMEOUT_S = 5.0
_START_PATIENCE_S = 15.0  # a server with a large file reads it first
_START_PAUSE_S = 0.1
T = TypeVar("T")

logger = logging.getLogger(__name__)


def is_unavailable(error: BaseException) -> bool:
    """Whether Redis is away, or refuses writes for a reason of its own: the same will work later.

    That is also the case while it loads its file, is full, has no disk or is a replica.
    """
    return refusal_of(error) is not None


def until_available(call: Callable[[], T]) -> T:
    """Make this call; while Redis is away, as it is at its own start, again for some seconds."""
    give_up_at = time.monotonic() + _START_PATIENCE_S
    while True:
        try:
            return call()
        except AuthenticationError:
            raise
        except RedisError as error:
            if not is_unavailable(error) or time.monotonic() > give_up_at:
                raise
        time.sleep(_START_PAUSE_S)


def connect(url: str, timeout_s: float) -> Redis:
    """A client whose calls wait so long for a reply; a lost connection is tried once more."""
    return _open(Redis, url, timeout_s)


def connect_impatient(url: str) -> Redis:
    """A client for the calls between two steps: while Redis is away they cost a second in all."""
    return _open(_ImpatientRedis, url, SOON_S)


def _open(kind: type[Redis], url: str, timeout_s: float) -> Redis:
    return kind.from_url(
        url,
        retry=Retry(NoBackoff(), retries=1, supported_errors=(RedisConnectionError,)),
        socket_timeout=timeout_s,
        socket_connect_timeout=min(timeout_s, _CONNECT_TIMEOUT_S),
    )


class AwayLog:
    """Says in the log that Redis is away or refuses, and why: one line in five seconds."""

    def __init__(self, logger: logging.Logger, event: str) -> None:
        self._logger = logger
        self._event = event
        self._say_again_at = -math.inf

    def note(self, error: RedisError) -> None:
        now = time.monotonic()
        if now >= self._say_again_at:
            self._say_again_at = now + _WARNING_S
            kind = type(error).__name__
            self._logger.warning("event=%s error=%s reason=%s", self._event, kind, error)


class _ImpatientRedis(Redis):
    """After a call that found nobody, the calls of the next second fail at once.

    It is the one to say in the log that Redis is away, as its callers just come again.
    """

    _ask_again_at = 0.0

    @cached_property
    def _away(self) -> AwayLog:
        return AwayLog(logger, "redis_away")

    def execute_command(self, *args: object, **options: object) -> object:
        if time.monotonic() < self._ask_again_at:
            raise RedisConnectionError("Redis was away a moment ago")
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except RedisError as error:
            if is_unavailable(error):
                self._note(error)
            raise

    def _note(self, error: RedisError) -> None:
        if not isinstance(error, ResponseError):  # that one came at once
            self._ask_again_at = time.monotonic() + SOON_S
        self._away.note(error)
