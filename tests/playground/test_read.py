"""Read: lines in; the nearest, the heat map and the map out."""

import json
import urllib.request
from collections.abc import Sequence
from math import sqrt
from typing import Literal, cast

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.playground.browser import Complaints

# By WCAG's relative luminance, of the colours as the browser mixes them.
CONTRASTS = """
(cells) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data]
      .map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return cells.map(getComputedStyle).map(({ color, backgroundColor }) => {
    const [dark, light] = [luminance(color), luminance(backgroundColor)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  });
}
"""

LINES = ("a red circle", "a small crimson disc", "a blue star")


def vectors_of(service_url: str, texts: Sequence[str]) -> list[list[float]]:
    request = urllib.request.Request(
        f"{service_url}/v1/embeddings",
        json.dumps({"input": texts}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return [each["embedding"] for each in json.load(response)["data"]]


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    def dot(u: Sequence[float], v: Sequence[float]) -> float:
        return sum(x * y for x, y in zip(u, v, strict=True))

    return dot(a, b) / sqrt(dot(a, a) * dot(b, b))


def compare(page: Page, lines: Sequence[str], query: str = "") -> None:
    page.get_by_label("Lines to compare").fill("\n".join(lines))
    page.get_by_label("Find the nearest to").fill(query)
    page.get_by_role("button", name="Compare").click()


def rows(page: Page) -> Locator:
    return page.get_by_role("table").locator("tbody tr")


@pytest.fixture
def read(page: Page) -> Page:
    page.goto("/#read")
    expect(page.get_by_label("Lines to compare")).not_to_have_value("")
    return page


def test_a_newcomer_gets_all_three_views_after_one_click(read: Page) -> None:
    read.get_by_role("button", name="Compare").click()
    expect(read.get_by_role("heading", name="Nearest to “something round and red”")).to_be_visible()
    expect(read.locator(".read-nearest li").first).to_contain_text("a red circle")
    expect(rows(read)).not_to_have_count(0)
    expect(read.locator(".read-map circle")).to_have_count(rows(read).count() + 1)  # the query
    expect(read.locator("#announcer")).to_have_text("12 lines compared")


def test_the_matrix_is_a_table_of_the_similarities(read: Page, service_url: str) -> None:
    vectors = vectors_of(service_url, LINES)
    compare(read, LINES)
    table = read.get_by_role("table", name="How alike the lines are")
    expect(table.get_by_role("rowheader")).to_have_text(
        [f"{number}{line}" for number, line in enumerate(LINES, 1)]
    )
    expect(table.get_by_role("columnheader")).to_have_text(["1", "2", "3"])
    for row, vector in enumerate(vectors):
        got = [float(text) for text in rows(read).nth(row).locator("td").all_inner_texts()]
        assert got == pytest.approx([cosine(vector, other) for other in vectors], abs=0.006)


def test_the_more_alike_two_lines_are_the_stronger_is_the_colour(read: Page) -> None:
    compare(read, LINES)
    expect(rows(read)).to_have_count(3)
    cells = rows(read).first.locator("td")
    heats = cells.evaluate_all("(cells) => cells.map((c) => +c.style.getPropertyValue('--heat'))")
    colours = cells.evaluate_all("(cells) => cells.map((c) => getComputedStyle(c).backgroundColor)")
    assert heats[0] == heats[1] == 1 > heats[2]
    assert colours[0] == colours[1] != colours[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_value_is_legible_on_its_colour(scheme: Literal["light", "dark"], read: Page) -> None:
    read.emulate_media(color_scheme=scheme)
    read.get_by_role("button", name="Compare").click()
    expect(rows(read)).to_have_count(12)
    contrasts = read.get_by_role("table").locator("tbody td").evaluate_all(CONTRASTS)
    assert len(contrasts) == 144
    assert min(contrasts) >= 4.5  # WCAG 2.2, AA
    assert max(contrasts) > 1.5 * min(contrasts)  # and the colours differ


def test_the_nearest_lines_are_ranked(read: Page, service_url: str) -> None:
    query = "something round and red"
    *vectors, wanted = vectors_of(service_url, [*LINES, query])
    compare(read, LINES[::-1], query)
    found = read.locator(".read-nearest li")
    expect(found.locator(".read-text")).to_have_text(list(LINES))
    got = [float(text) for text in found.locator(".read-value").all_inner_texts()]
    assert got == pytest.approx([cosine(wanted, vector) for vector in vectors], abs=0.006)


def test_without_a_query_nothing_is_nearest(read: Page) -> None:
    compare(read, LINES)
    expect(rows(read)).to_have_count(3)
    expect(read.locator(".read-nearest")).to_have_count(0)


def test_one_line_and_a_query_need_no_matrix(read: Page) -> None:
    compare(read, LINES[:1], "a red circle")
    expect(read.locator(".read-nearest .read-value")).to_have_text("1.00")
    expect(read.get_by_role("table")).to_have_count(0)


@pytest.mark.parametrize(("num_lines", "num_maps"), [(10, 0), (11, 1)])
def test_a_map_is_drawn_of_more_than_ten_lines(num_lines: int, num_maps: int, read: Page) -> None:
    compare(read, [f"{number} red circles" for number in range(num_lines)])
    expect(rows(read)).to_have_count(num_lines)
    expect(read.locator(".read-map svg")).to_have_count(num_maps)
    expect(read.locator(".read-map circle")).to_have_count(num_lines * num_maps)


def test_a_map_has_the_same_meanings_side_by_side(read: Page) -> None:
    read.get_by_role("button", name="Compare").click()
    expect(read.locator(".read-map svg")).to_be_visible()
    places = read.locator(".read-map g").evaluate_all(
        """(groups) => Object.fromEntries(groups.map((group) => {
            const circle = group.querySelector("circle");
            return [group.querySelector("title").textContent, [+circle.getAttribute("cx"),
                    +circle.getAttribute("cy")]];
        }))"""
    )

    def distance(a: str, b: str) -> float:
        (ax, ay), (bx, by) = places[a], places[b]
        return sqrt((ax - bx) ** 2 + (ay - by) ** 2)

    near = distance("a red circle", "a small crimson disc")
    assert 3 * near < distance("a red circle", "a blue star")


def test_more_lines_than_a_table_can_show_are_in_the_json_all_the_same(read: Page) -> None:
    read.context.grant_permissions(["clipboard-read", "clipboard-write"])
    compare(read, [f"{number} red circles" for number in range(43)])
    expect(rows(read)).to_have_count(40)
    expect(read.get_by_text("The first 40 lines; 3 more are in the JSON.")).to_be_visible()
    read.get_by_role("button", name="Copy as JSON").click()
    expect(read.locator("#announcer")).to_have_text("Copied")
    lines = copied(read)["lines"]
    assert isinstance(lines, list)
    assert len(lines) == 43


def copied(page: Page) -> dict[str, object]:
    text = page.evaluate("() => navigator.clipboard.readText()")
    return cast(dict[str, object], json.loads(text))


def test_the_json_has_what_is_shown(read: Page, service_url: str) -> None:
    read.context.grant_permissions(["clipboard-read", "clipboard-write"])
    query = "something round and red"
    *vectors, wanted = vectors_of(service_url, [*LINES, query])
    compare(read, LINES, query)
    read.get_by_role("button", name="Copy as JSON").click()
    expect(read.locator("#announcer")).to_have_text("Copied")
    got = copied(read)
    assert got["model"] == "f_net_shapes"
    assert got["lines"] == list(LINES)
    assert got["query"] == query
    assert got["similarities"] == [
        pytest.approx([cosine(a, b) for b in vectors], abs=1e-5) for a in vectors
    ]
    assert got["nearest"] == [
        {"text": line, "similarity": pytest.approx(cosine(wanted, vector), abs=1e-5)}
        for line, vector in zip(LINES, vectors, strict=True)
    ]


def test_copying_needs_no_tls(read: Page) -> None:
    read.evaluate("() => Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    compare(read, LINES)
    read.get_by_role("button", name="Copy as JSON").press("Enter")
    expect(read.get_by_role("button", name="Copy as JSON")).to_be_focused()
    read.get_by_label("Lines to compare").fill("")
    read.get_by_label("Lines to compare").press("Control+V")
    pasted = json.loads(read.get_by_label("Lines to compare").input_value())
    assert pasted["lines"] == list(LINES)


def test_a_line_that_is_too_long_is_named_as_it_stands(read: Page, complaints: Complaints) -> None:
    complaints.expect("400 (Bad Request)")
    compare(read, ["a red circle", "", "red " * 600, "a blue star"])
    expect(read.get_by_role("alert")).to_contain_text("Line 3: the text has 602 tokens")
    compare(read, LINES, "blue " * 600)
    expect(read.get_by_role("alert")).to_contain_text("The text to find: the text has 602")
    compare(read, LINES)
    expect(rows(read)).to_have_count(3)
    expect(read.get_by_role("alert")).to_have_count(0)


def test_no_lines_are_no_request(read: Page) -> None:
    compare(read, ["  ", " "])
    expect(read.get_by_role("alert")).to_have_text("There are no lines to compare.")


def test_control_and_enter_compare_from_within_the_text(read: Page) -> None:
    read.get_by_label("Lines to compare").press("Control+Enter")
    expect(read.get_by_role("table")).to_be_visible()


def test_a_phone_scrolls_the_table_and_not_the_page(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/#read")
    page.get_by_role("button", name="Compare").click()
    scroller = page.get_by_role("group", name="How alike the lines are")
    expect(scroller).to_be_in_viewport()  # though it lies below the form
    assert scroller.evaluate("(box) => box.scrollWidth > box.clientWidth")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    scroller.evaluate("(box) => { box.scrollLeft = 200 }")
    heading, box = page.get_by_role("rowheader").first.bounding_box(), scroller.bounding_box()
    assert heading is not None
    assert box is not None
    assert heading["x"] >= box["x"]  # it stays while the values move
    svg = page.locator(".read-map svg").bounding_box()
    assert svg is not None
    assert svg["width"] <= 390
