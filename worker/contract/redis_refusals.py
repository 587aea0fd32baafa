"""Which errors of Redis are no fault of a command: it is away, or takes nothing for now.

The same command will work later. Both sides must tell such errors from those that no waiting mends.
Knows nothing of what is done about them.
"""

import re
from enum import StrEnum

from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

# The server's words for which redis-py has no class. In a pipeline it puts the command before them.
_CANNOT_WRITE = re.compile(r"(^|caused error: )(MISCONF|NOREPLICAS)\b")
_CANNOT_ANSWER = re.compile(r"(^|caused error: )BUSY\b")  # with a script that does not end
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|File too large")


class Refusal(StrEnum):
    """Why Redis takes nothing; also the code of the API's answer."""

    FULL = "redis_full"  # no memory for more, by its setting `maxmemory`, or no disk
    READ_ONLY = "redis_read_only"  # a replica, or its file cannot be written
    UNAVAILABLE = "redis_unavailable"  # away, silent, reading its file, or busy


def refusal_of(error: BaseException) -> Refusal | None:
    """None where it is the command that is at fault, which is a bug, or no error of Redis."""
    text = str(error) if isinstance(error, ResponseError) else ""
    if isinstance(error, OutOfMemoryError):
        return Refusal.FULL
    if isinstance(error, ReadOnlyError) or _CANNOT_WRITE.search(text):
        return Refusal.FULL if _NO_SPACE.search(text) else Refusal.READ_ONLY
    is_away = isinstance(error, RedisConnectionError | RedisTimeoutError | ClusterDownError)
    return Refusal.UNAVAILABLE if is_away or _CANNOT_ANSWER.search(text) else None
