"""Chromium as the system has it (Debian's package `chromium`), driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def installed() -> str | None:
    """The path of the browser; None where there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def browsing(path: str) -> Iterator[Browser]:
    # root has no sandbox, and containers a small /dev/shm
    flags = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()
