"""A server that is away, silent, or refuses writes."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.worker.conftest import wait_until
from tests.worker.redis_proxy import redis_proxy
from worker.redis_clients import connect, connect_impatient, is_unavailable, until_available


@contextmanager
def configured(redis: Redis, settings: Mapping[str, str]) -> Iterator[None]:
    """Let the server have these settings for a while."""
    before = {name: redis.config_get(name)[name] or "" for name in settings}
    try:
        for name, value in settings.items():
            redis.config_set(name, value)
        yield
    finally:
        for name, value in before.items():
            redis.config_set(name, value)


@pytest.mark.parametrize(
    "settings",
    [{"maxmemory": "1"}, {"min-replicas-to-write": "1"}],
    ids=["it_is_full", "it_has_too_few_replicas"],
)
@pytest.mark.parametrize("as_script", [False, True], ids=["of_a_command", "of_a_script"])
def test_a_refusal_that_will_pass_is_known(
    redis: Redis, settings: Mapping[str, str], as_script: bool
) -> None:
    with configured(redis, settings), pytest.raises(RedisError) as caught:
        redis.eval("redis.call('SET', 'a', 1)", 0) if as_script else redis.set("a", 1)
    assert is_unavailable(caught.value)


def test_a_replica_takes_no_writes_for_a_while(redis: Redis) -> None:
    redis.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(RedisError) as caught:
            redis.set("a", 1)
    finally:
        redis.replicaof("NO", "ONE")
    assert is_unavailable(caught.value)


def test_a_server_that_is_away_at_the_start_is_waited_for(redis_url: str) -> None:
    with redis_proxy(redis_url) as proxy, connect(proxy.url, timeout_s=5.0) as client:
        proxy.is_away = True
        tries = list[int]()

        def ping() -> None:
            tries.append(1)
            proxy.is_away = len(tries) < 3
            client.ping()

        until_available(ping)
    assert len(tries) == 3


def test_a_silent_server_is_asked_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        client = connect(f"redis://{host}:{port}", timeout_s=0.1)
        with client, pytest.raises(RedisTimeoutError):
            client.ping()
        server.settimeout(0.1)
        server.accept()[0].close()
        with pytest.raises(TimeoutError):
            server.accept()


def test_an_impatient_client_asks_a_server_that_was_away_once_a_second(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_proxy(redis_url) as proxy, connect_impatient(proxy.url) as client:
        assert client.ping()
        proxy.go_away()
        num_before = proxy.num_accepted
        for _ in range(20):
            with pytest.raises(RedisConnectionError):
                client.ping()
        assert proxy.num_accepted - num_before <= 4  # of one call, and of its second try
        assert caplog.text.count("event=redis_away") == 1
        proxy.is_away = False

        def is_back() -> bool:
            try:
                return bool(client.ping())
            except RedisConnectionError:
                return False

        wait_until(is_back, "it is not asked again")
