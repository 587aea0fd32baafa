"""The playground without a mouse, by ear, on a phone, in the dark, and without motion."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.playground.browser import DESKTOP, PHONE, Complaints, watched_page

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
TABS = ("paint", "see", "read")

# Of each violation what it is, and where: all of WCAG 2.2 AA, and axe's own best practices.
FIND = """
async () => (await axe.run()).violations
  .map(({id, impact, nodes}) => `${impact} ${id}: ${nodes.map(({html}) => html).join(" | ")}`)
"""


@pytest.fixture(scope="module", params=[True, False], ids=["dark phone", "light desktop"])
def used(request: pytest.FixtureRequest, browser: Browser, service_url: str) -> Iterator[Page]:
    """The page with something in each tab."""
    complaints = Complaints()
    screen = replace(PHONE, is_dark=True) if request.param else DESKTOP
    with watched_page(browser, complaints, service_url, screen) as page:
        use(page)
        yield page
    assert complaints.unexpected == []


def use(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Prompt", exact=True).fill("a red circle")
    page.get_by_role("spinbutton", name="Steps").fill("4")
    page.get_by_role("button", name="Paint", exact=True).click()
    page.get_by_text("This request as code").click()
    page.get_by_role("tab", name="See").click()
    page.locator("#see-examples button").first.click()
    expect(page.locator("#see-pictures li").first).to_contain_text("%")
    page.get_by_role("tab", name="Read").click()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("button", name="Copy as JSON")).to_be_visible()


@pytest.mark.parametrize("tab", TABS)
def test_axe_finds_no_violation(used: Page, tab: str) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not there: `make test` installs it")
    used.get_by_role("tab", name=tab).click()
    used.evaluate(AXE.read_text(encoding="utf-8"))
    assert used.evaluate(FIND) == []


@pytest.mark.parametrize("tab", TABS)
def test_nothing_is_wider_than_the_screen(used: Page, tab: str) -> None:
    used.get_by_role("tab", name=tab).click()
    wide, width = used.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= width


def test_axe_finds_a_violation(page: Page) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not there: `make test` installs it")
    page.goto("/")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    page.evaluate("document.querySelector('#paint-prompt').labels[0].remove()")
    page.evaluate("document.querySelector('#paint-prompt').removeAttribute('placeholder')")
    assert any("critical label" in found for found in page.evaluate(FIND))


def test_the_keyboard_alone_paints_and_goes_on(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("button", name="Paint", exact=True)).to_be_enabled()
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="Paint")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="See")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="See")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    tab_to(page, "#paint-prompt")
    page.keyboard.type("a blue star")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Download")).to_be_visible()
    tab_to(page, "#paint-stage a")


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus, which it shows."""
    for _ in range(60):
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(style) != "none"
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {selector}")


def test_the_address_says_which_tab_is_open(page: Page) -> None:
    page.goto("/#read")
    expect(page.get_by_role("tabpanel", name="Read")).to_be_visible()
    page.get_by_role("tab", name="See").click()
    page.go_back()
    expect(page.get_by_role("tabpanel", name="Read")).to_be_visible()


def test_what_ends_is_said_to_those_who_listen(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Prompt", exact=True).fill("a green cross")
    page.get_by_role("button", name="Paint", exact=True).click()
    expect(page.locator("#announcer")).not_to_be_empty()


def test_nothing_moves_for_those_who_want_it_so(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto("/")
    page.get_by_label("Prompt", exact=True).fill("a green ring")
    page.get_by_role("spinbutton", name="Steps").fill("80")  # enough to look at it meanwhile
    page.get_by_role("button", name="Paint", exact=True).click()
    expect(page.locator("#paint-queue li")).not_to_have_count(0)
    assert page.evaluate("document.getAnimations().length") == 0
    moving = """[...document.querySelectorAll("*")].filter((each) => {
      const {animationName, transitionDuration} = getComputedStyle(each);
      return animationName !== "none" || !/^0s(, 0s)*$/.test(transitionDuration);
    }).map((each) => each.outerHTML)"""
    assert page.evaluate(moving) == []
