"""Commands that are sent together come back apart."""

import asyncio
from contextlib import aclosing

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from benchmarks.running_service import scratch_redis
from service.main import _ASYNC_RETRY
from service.round_trips import RoundTrips
from tests.service.conftest import wait_for


def num_reads(redis: Redis) -> int:
    """How often the server has read from a client's socket so far."""
    return int(redis.info("stats")["total_reads_processed"])


def test_commands_of_one_turn_share_a_round_trip() -> None:
    async def run(redis: Redis, redis_url: str) -> tuple[list[object], int]:
        async with AsyncRedis.from_url(redis_url, decode_responses=True) as client:
            round_trips = RoundTrips(client)
            await round_trips.execute("PING")  # connects
            before = num_reads(redis)
            calls = (round_trips.execute("ECHO", str(number)) for number in range(100))
            replies = await asyncio.gather(*calls)
            return list(replies), num_reads(redis) - before

    # which nobody else asks anything
    with scratch_redis() as server, Redis.from_url(server.connection_url) as redis:
        replies, reads = asyncio.run(run(redis, server.connection_url))
    assert replies == [str(number) for number in range(100)]
    assert reads <= 2, "one for all of them, one for the question"


@pytest.mark.usefixtures("redis")
def test_a_refused_command_fails_alone(redis_url: str) -> None:
    async def run() -> list[object | BaseException]:
        async with AsyncRedis.from_url(redis_url, decode_responses=True) as client:
            round_trips = RoundTrips(client)
            calls = (round_trips.execute(name, "x") for name in ("ECHO", "NONSENSE", "ECHO"))
            return list(await asyncio.gather(*calls, return_exceptions=True))

    first, refused, last = asyncio.run(run())
    assert (first, last) == ("x", "x")
    assert isinstance(refused, ResponseError)


@pytest.mark.usefixtures("redis")
def test_a_caller_that_leaves_takes_no_other_with_it(redis_url: str) -> None:
    async def run() -> object:
        async with AsyncRedis.from_url(redis_url, decode_responses=True) as client:
            round_trips = RoundTrips(client)
            leaver = asyncio.ensure_future(round_trips.execute("ECHO", "left"))
            stayer = asyncio.ensure_future(round_trips.execute("ECHO", "stayed"))
            await asyncio.sleep(0)
            leaver.cancel()
            return await stayer

    assert asyncio.run(run()) == "stayed"


def test_no_connection_is_left_of_a_caller_that_has_left(redis: Redis, redis_url: str) -> None:
    name = "left-behind"

    def is_gone() -> bool:
        return name not in [client["name"] for client in redis.client_list()]

    async def run() -> None:
        client = AsyncRedis.from_url(redis_url, client_name=name, retry=_ASYNC_RETRY)
        async with client, aclosing(RoundTrips(client)) as round_trips:
            leaver = asyncio.ensure_future(round_trips.execute("BLPOP", "empty", "60"))
            while is_gone():
                await asyncio.sleep(0.01)
            leaver.cancel()
        # one that went on would connect again
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 30)
        wait_for(is_gone)

    asyncio.run(run())


@pytest.mark.usefixtures("redis")
def test_what_was_asked_for_in_the_last_turn_is_ended_too(redis_url: str) -> None:
    async def run() -> list[object | BaseException]:
        async with AsyncRedis.from_url(redis_url) as client:
            round_trips = RoundTrips(client)
            caller = asyncio.ensure_future(round_trips.execute("BLPOP", "empty", "60"))
            await asyncio.sleep(0)
            await round_trips.aclose()
            return list(await asyncio.gather(caller, return_exceptions=True))

    assert [type(reply) for reply in asyncio.run(run())] == [asyncio.CancelledError]


def test_a_script_runs_where_the_server_has_forgotten_it(redis: Redis, redis_url: str) -> None:
    async def run() -> list[object]:
        async with AsyncRedis.from_url(redis_url, decode_responses=True) as client:
            round_trips = RoundTrips(client)
            first = await round_trips.run_script("return ARGV[1]", ["a"])
            redis.script_flush()
            return [first, await round_trips.run_script("return ARGV[1]", ["b"])]

    assert asyncio.run(run()) == ["a", "b"]


def test_a_reply_that_cannot_be_read_leaves_nobody_waiting(redis: Redis, redis_url: str) -> None:
    async def run() -> tuple[list[object | BaseException], object]:
        async with AsyncRedis.from_url(redis_url, decode_responses=True) as client:
            round_trips = RoundTrips(client)
            calls = (round_trips.execute("GET", key) for key in ("a", "stranger", "b"))
            replies = await asyncio.gather(*calls, return_exceptions=True)
            return list(replies), await round_trips.execute("GET", "b")

    redis.mset({"a": "x", "stranger": b"\xff", "b": "y"})
    replies, after = asyncio.run(run())
    assert [type(reply) for reply in replies] == [UnicodeDecodeError] * 3
    assert after == "y", "and no later caller gets a reply that was left unread"


@pytest.mark.usefixtures("redis")
def test_a_round_trip_that_is_canceled_leaves_nobody_waiting(redis_url: str) -> None:
    async def run() -> list[object | BaseException]:
        async with AsyncRedis.from_url(redis_url, decode_responses=True) as client:
            round_trips = RoundTrips(client)
            callers = [asyncio.ensure_future(round_trips.execute("PING")) for _ in range(2)]
            before = asyncio.all_tasks()
            while not (under_way := asyncio.all_tasks() - before):
                await asyncio.sleep(0)
            under_way.pop().cancel()
            return list(await asyncio.gather(*callers, return_exceptions=True))

    assert [type(reply) for reply in asyncio.run(run())] == [asyncio.CancelledError] * 2


def test_a_server_that_is_not_there_fails_every_call() -> None:
    async def run() -> list[object | BaseException]:
        async with AsyncRedis(port=1, retry=Retry(NoBackoff(), 0)) as client:
            round_trips = RoundTrips(client)
            calls = (round_trips.execute("PING") for _ in range(3))
            return list(await asyncio.gather(*calls, return_exceptions=True))

    assert all(isinstance(reply, RedisConnectionError) for reply in asyncio.run(run()))
