"""Which errors of Redis will pass."""

import pytest
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.contract.redis_refusals import Refusal, refusal_of


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (OutOfMemoryError("command not allowed"), Refusal.FULL),
        (ReadOnlyError("You can't write against a read only replica."), Refusal.READ_ONLY),
        (ResponseError("MISCONF Errors writing to the AOF file: Input/output error"),
         Refusal.READ_ONLY),
        (ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
         Refusal.FULL),
        (RedisConnectionError("Connection refused"), Refusal.UNAVAILABLE),
        (RedisTimeoutError("Timeout reading"), Refusal.UNAVAILABLE),
        (ClusterDownError("The cluster is down"), Refusal.UNAVAILABLE),
        (BusyLoadingError("Redis is loading the dataset in memory"), Refusal.UNAVAILABLE),
        (ResponseError("BUSY Redis is busy running a script."), Refusal.UNAVAILABLE),
        (ResponseError("Command # 1 (HSET …) of pipeline caused error: MISCONF Errors …"),
         Refusal.READ_ONLY),
        (ResponseError("WRONGTYPE Operation against a key"), None),
        (ResponseError("BUSYKEY Target key name already exists."), None),
        (KeyError("job"), None),
        (ResponseError("Command # 1 (SET MISCONF …) of pipeline caused error: ERR …"), None),
    ],
)  # fmt: skip
def test_what_redis_says_is_told_apart_from_a_bug(
    error: Exception, refusal: Refusal | None
) -> None:
    assert refusal_of(error) is refusal
