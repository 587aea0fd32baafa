"""What many tests share, each started once a session by the first test that asks for it.

A real Valkey server, emptied for each test; and the real thing, `triptych serve` with the bundled
presets.
"""

import gc
from collections.abc import Generator, Iterator

import pytest
import torch
from redis import Redis

from benchmarks.running_service import scratch_redis
from tests.running_service import Service, start_service, stop_service


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep garbage collection out of the imports, and what they made out of it for good.

    It is nearly all of what the process ever holds: to look for garbage in it takes more than a
    third of the collection's time, and time of every test that collects garbage.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A private server on a free port; nothing of it stays on the disk."""
    with scratch_redis() as server:
        yield server.connection_url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread in this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = start_service(tmp_path_factory.mktemp("data"))
    yield running
    stop_service(running)
