"""A real Chromium on the playground of the running service.

Each test's page is one of a person who was never here, and fails the test that lets it complain.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.playground.browser import (
    PATIENCE_MS,
    Complaints,
    chromium,
    forget,
    opened_page,
    watched_page,
)
from tests.running_service import Service

expect.set_options(timeout=PATIENCE_MS)


# Its event loop is that of the thread while it runs: tests elsewhere need their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def service_url(service: Service) -> str:
    return service.url


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    found = Complaints()
    yield found
    assert found.unexpected == []


@pytest.fixture(scope="module")
def shared_page(browser: Browser, service_url: str) -> Iterator[Page]:
    with opened_page(browser, service_url) as page:
        yield page


@pytest.fixture
def page(shared_page: Page, complaints: Complaints) -> Iterator[Page]:
    """An empty page; `page.goto("/")` opens the playground."""
    forget(shared_page)
    with complaints.watching(shared_page):
        yield shared_page


@pytest.fixture
def new_page(browser: Browser, service_url: str, complaints: Complaints) -> Iterator[Page]:
    """Like `page`, with nothing in its cache, and no other test's after this one."""
    with watched_page(browser, complaints, service_url) as opened:
        yield opened
