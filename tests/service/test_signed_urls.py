"""Who agrees with whom on the secret that URLs are signed with, and when Redis is asked for it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError

from service.errors import SignatureError
from service.signed_urls import SECRET_KEY, SignedUrls

NAME = "job_1-1-0.png"
EXPIRES_AT = 1000


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def run(redis_url: str, act: Callable[[AsyncRedis], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncRedis.from_url(redis_url, decode_responses=True) as client:
            await act(client)

    asyncio.run(main())


async def is_known(query: str, urls: SignedUrls) -> bool:
    exp, sig = (part.partition("=")[2] for part in query.split("&"))
    try:
        return await urls.check(NAME, exp, sig, now=0.0) == EXPIRES_AT
    except SignatureError:
        return False


@pytest.mark.usefixtures("redis")
def test_the_first_one_makes_the_secret_and_all_others_take_it(redis_url: str) -> None:
    async def act(client: AsyncRedis) -> None:
        several = [SignedUrls(client, None) for _ in range(3)]
        queries = await asyncio.gather(*(urls.query(NAME, EXPIRES_AT) for urls in several))
        assert len(set(queries)) == 1
        assert await is_known(queries[0], SignedUrls(client, None))

    run(redis_url, act)


def test_a_secret_that_redis_has_lost_is_put_there_again(redis_url: str, redis: Redis) -> None:
    async def act(client: AsyncRedis) -> None:
        clock = Clock()
        urls = SignedUrls(client, None, clock)
        query = await urls.query(NAME, EXPIRES_AT)
        before = redis.getdel(SECRET_KEY)
        clock.now_s = 60.0
        assert await urls.query(NAME, EXPIRES_AT) == query
        assert redis.get(SECRET_KEY) == before

    run(redis_url, act)


@pytest.mark.usefixtures("redis")
def test_who_meets_a_strange_signature_looks_for_a_new_secret_at_once(redis_url: str) -> None:
    async def act(client: AsyncRedis) -> None:
        urls = SignedUrls(client, None, Clock())
        own = await urls.query(NAME, EXPIRES_AT)
        await client.delete(SECRET_KEY)
        query = await SignedUrls(client, None).query(NAME, EXPIRES_AT)
        assert query != own
        assert await is_known(query, urls)
        assert await urls.query(NAME, EXPIRES_AT) == query

    run(redis_url, act)


@pytest.mark.usefixtures("redis")
def test_what_is_known_does_for_as_long_as_redis_is_away(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_key: str) -> None:
        raise RedisConnectionError

    async def act(client: AsyncRedis) -> None:
        clock = Clock()
        urls, newcomer = SignedUrls(client, None, clock), SignedUrls(client, None)
        query = await urls.query(NAME, EXPIRES_AT)
        clock.now_s = 60.0
        monkeypatch.setattr(client, "get", refuse)
        assert await urls.query(NAME, EXPIRES_AT) == query
        assert await is_known(query, urls)
        with pytest.raises(RedisConnectionError):
            await newcomer.query(NAME, EXPIRES_AT)

    run(redis_url, act)


def test_a_secret_that_is_set_needs_no_redis() -> None:
    async def act(client: AsyncRedis) -> None:
        urls = SignedUrls(client, SecretStr("0123456789abcdef"))
        assert await is_known(await urls.query(NAME, EXPIRES_AT), urls)
        assert not await is_known("exp=1000&sig=0", urls)

    run("redis://127.0.0.1:1/0", act)


def test_the_signature_is_an_hmac_of_name_and_time() -> None:
    # printf 'job_1-1-0.png\n1000' | openssl dgst -sha256 -hmac 0123456789abcdef
    expected = "89417f578a5e1b9e9dfe68382bd27436160b8dd83407ed65b24521613b5a9504"

    async def act(client: AsyncRedis) -> None:
        query = await SignedUrls(client, SecretStr("0123456789abcdef")).query(NAME, EXPIRES_AT)
        assert query == f"exp=1000&sig={expected}"

    run("redis://127.0.0.1:1/0", act)
