"""The URL of an image is a key to it: whoever has one may fetch the image until it expires.

The signature is an HMAC-SHA256 of the file's name and the time. Its secret is one for all processes
of the API, on any host: the operator's, or one that the first of them made and left in Redis. Who
knows it puts it there again, should Redis have lost it. Times are Unix seconds.
"""

import hmac
import secrets
import time
from collections.abc import Callable
from hashlib import sha256

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.errors import FileExpiredError, SignatureError

SECRET_KEY = "triptych:url_secret"
_TRUSTED_S = 10.0  # without a look at Redis, which may have lost the secret and have another one


class SignedUrls:
    def __init__(
        self,
        redis: Redis,
        secret: SecretStr | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`secret` None: the one in Redis."""
        self._redis = redis
        self._secret = None if secret is None else secret.get_secret_value()
        self._is_given = secret is not None
        self._clock = clock
        self._read_at = 0.0  # by the clock

    async def query(self, file_name: str, expires_at: int) -> str:
        """What the URL of a file ends with."""
        signature = _signature(await self._read_secret(_TRUSTED_S), file_name, str(expires_at))
        return f"exp={expires_at}&sig={signature}"

    async def check(self, file_name: str, exp: str | None, sig: str | None, now: float) -> int:
        """Return until when the URL with this query is good.

        Raises SignatureError for a query that is not ours, FileExpiredError for one from then on.
        """
        if exp is None or sig is None or not await self._is_ours(file_name, exp, sig):
            raise SignatureError(file_name)
        expires_at = int(exp)
        if now >= expires_at:
            raise FileExpiredError(file_name)
        return expires_at

    async def _is_ours(self, file_name: str, exp: str, sig: str) -> bool:
        if self._secret is not None and _fits(self._secret, file_name, exp, sig):
            return True
        return _fits(await self._read_secret(max_age_s=0.0), file_name, exp, sig)

    async def _read_secret(self, max_age_s: float) -> str:
        """The secret, read so long ago at most; whenever it was, where Redis is away."""
        is_recent = self._clock() - self._read_at < max_age_s
        if self._secret is not None and (self._is_given or is_recent):
            return self._secret
        try:
            self._secret = await self._agree_on(self._secret or secrets.token_hex(32))
            self._read_at = self._clock()
        except RedisError:
            if self._secret is None:
                raise
        return self._secret

    async def _agree_on(self, proposed: str) -> str:
        """The secret of all processes: the one proposed, if there is none yet."""
        if (found := await self._redis.get(SECRET_KEY)) is None:
            await self._redis.set(SECRET_KEY, proposed, nx=True)  # or another one was faster
            found = await self._redis.get(SECRET_KEY)
        return proposed if found is None else str(found)


def _fits(secret: str, file_name: str, exp: str, sig: str) -> bool:
    expected = _signature(secret, file_name, exp)
    return hmac.compare_digest(expected.encode(), sig.encode(errors="replace"))


def _signature(secret: str, file_name: str, exp: str) -> str:
    signed = f"{file_name}\n{exp}".encode(errors="replace")
    return hmac.new(secret.encode(), signed, sha256).hexdigest()
