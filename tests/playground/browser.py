"""Chromium as it is installed, and what no page may do in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request

from benchmarks.chromium import browsing, installed

PATIENCE_MS = 60_000  # two cores paint and run a browser at once


@dataclass(frozen=True, slots=True)
class Screen:
    """What somebody looks at."""

    width: int
    height: int
    is_phone: bool = False
    is_dark: bool = False


DESKTOP = Screen(1280, 860)
PHONE = Screen(390, 844, is_phone=True)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; skip the test where there is none."""
    path = installed()
    if path is None:
        pytest.skip("Chromium is not installed: `apt-get install chromium` has it")
    with browsing(path) as browser:
        yield browser


@dataclass
class Complaints:
    """What went wrong in a page: errors on the console, of scripts and of the policy; strangers.

    A journey through faults says before which words it expects.
    """

    _said: list[str] = field(default_factory=list)
    _expected: list[str] = field(default_factory=list)

    @contextmanager
    def watching(self, page: Page) -> Iterator[None]:
        """Until the block ends, and the page is left: what it did last is heard of by then."""
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)
        page.on("request", self._on_request)
        try:
            yield
            page.goto("about:blank")
        finally:
            page.remove_listener("console", self._on_console)
            page.remove_listener("pageerror", self._on_error)
            page.remove_listener("request", self._on_request)

    def expect(self, *words: str) -> None:
        self._expected += words

    @property
    def unexpected(self) -> list[str]:
        return [said for said in self._said if not any(w in said for w in self._expected)]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._said.append(f"console: {message.text}")

    def _on_error(self, error: Error) -> None:
        self._said.append(f"script: {error}")

    def _on_request(self, request: Request) -> None:
        url, page = urlsplit(request.url), urlsplit(request.frame.url)
        is_within = url.scheme in ("data", "blob") or page.scheme == "about"
        if not is_within and url.netloc != page.netloc:
            self._said.append(f"another origin: {request.url}")


@contextmanager
def opened_page(browser: Browser, base_url: str, screen: Screen = DESKTOP) -> Iterator[Page]:
    """A page of a context of its own, as of a person who was never here."""
    context = browser.new_context(
        base_url=base_url,
        viewport={"width": screen.width, "height": screen.height},
        has_touch=screen.is_phone,
        is_mobile=screen.is_phone,
        color_scheme="dark" if screen.is_dark else "light",
    )
    context.set_default_timeout(PATIENCE_MS)
    try:
        yield context.new_page()
    finally:
        context.close()


@contextmanager
def watched_page(
    browser: Browser, complaints: Complaints, base_url: str, screen: Screen = DESKTOP
) -> Iterator[Page]:
    with opened_page(browser, base_url, screen) as page, complaints.watching(page):
        yield page


def forget(page: Page) -> None:
    """Make it again the page of a person who was never here, but for the files in its cache.

    A third of what a new page costs, for which Chromium starts a process. Scripts that were added
    to the page stay, and listeners to it: a test that needs those takes a new page.
    """
    page.goto("/livez")  # of the same origin, and asks for nothing
    page.unroute_all()
    page.context.clear_permissions()
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    page.set_viewport_size({"width": DESKTOP.width, "height": DESKTOP.height})
    page.mouse.move(0, 0)
    origin = page.evaluate("sessionStorage.clear(), origin")
    devtools = page.context.new_cdp_session(page)
    # the browser's own hand waits for no connection to a database that a page still has
    devtools.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
    devtools.detach()
