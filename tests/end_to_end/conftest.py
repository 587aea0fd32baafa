"""What the tests of this folder ask the running service with."""

from collections.abc import Iterator

import httpx
import pytest

from tests.running_service import Service


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as made:
        yield made
