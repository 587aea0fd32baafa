"""The playground as people see it, for the pages: a desktop in the light, a phone in the dark, …

What is painted has its seeds, so that a picture changes only where the page does. Small files: WebP
of what is flat and sharp.
"""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

_QUALITY = 60
_PATIENCE_MS = 60_000
_PROMPTS = (
    ("a small white ring in the top left corner on purple", 4),
    ("three orange stars in a row", 11),
    ("a large red circle on a white background at the left", 3),
    ("a blue heart", 8),
    ("a yellow star above a green ring", 1),
)


@dataclass(frozen=True, slots=True)
class _Shot:
    """A tab on a screen, scrolled to an element."""

    tab: str
    at: str
    width: int
    height: int
    is_dark: bool = False

    @property
    def name(self) -> str:
        size = "phone" if self.width < 600 else "desktop"
        return f"playground_{self.tab}_{size}_{'dark' if self.is_dark else 'light'}.webp"


_SHOTS = (
    _Shot("paint", "body", 1400, 1080),
    _Shot("paint", "#paint-stage", 390, 780, is_dark=True),
    _Shot("see", "#see-pictures", 390, 780),
    _Shot("read", "body", 1280, 900, is_dark=True),
)


def draw(browser: Browser, url: str, folder: Path) -> None:
    """Write each shot to the folder; the whole gallery is painted once, and kept by the browser."""
    context = browser.new_context()
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    page.goto(url)
    _paint(page)
    _see(page)
    _read(page)
    _show_latest(page)
    for shot in _SHOTS:
        page.set_viewport_size({"width": shot.width, "height": shot.height})
        page.emulate_media(color_scheme="dark" if shot.is_dark else "light")
        page.get_by_role("tab", name=shot.tab).click()
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        page.locator(shot.at).evaluate("(element) => element.scrollIntoView()")
        _write(page.screenshot(), folder / shot.name)
    context.close()


def _paint(page: Page) -> None:
    # until then nobody listens to the form
    expect(page.locator("#paint-submit")).to_be_enabled(timeout=_PATIENCE_MS)
    for num_painted, (prompt, seed) in enumerate(_PROMPTS, start=1):
        page.get_by_role("button", name="Locked").click()
        page.get_by_label("Seed", exact=True).and_(page.get_by_role("spinbutton")).fill(str(seed))
        page.get_by_label("Prompt", exact=True).fill(prompt)
        page.get_by_role("button", name="Paint", exact=True).click()
        gallery = page.locator("#paint-gallery li")
        expect(gallery).to_have_count(num_painted, timeout=_PATIENCE_MS)


def _see(page: Page) -> None:
    pictures = page.locator("#see-pictures > li")
    for index in range(3):
        page.get_by_role("tab", name="Paint").click()
        page.locator("#paint-gallery button").nth(index).click()
        page.get_by_role("button", name="Classify this").click()
        expect(pictures.filter(has_text="%")).to_have_count(index + 1, timeout=_PATIENCE_MS)


def _read(page: Page) -> None:
    page.get_by_role("tab", name="Read").click()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("button", name="Copy as JSON")).to_be_visible()


def _show_latest(page: Page) -> None:
    page.get_by_role("tab", name="Paint").click()
    page.locator("#paint-gallery button").first.click()
    expect(page.locator("#paint-stage .paint-prompt")).to_have_text(_PROMPTS[-1][0])


def _write(png: bytes, path: Path) -> None:
    Image.open(io.BytesIO(png)).convert("RGB").save(path, quality=_QUALITY, method=6)
