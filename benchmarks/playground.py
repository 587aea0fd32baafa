"""How soon does the playground show, and what does it send?

`python -m benchmarks.playground [--output FILE] [--pictures FOLDER]`. Starts `triptych serve`,
opens the page in Chromium as one who was never here and again as one who was, and takes the
browser's own first contentful paint and what came over the wire. With `--pictures` it paints, and
draws the page.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page

from benchmarks.chromium import browsing, installed
from benchmarks.machine import processor
from benchmarks.playground_pictures import draw
from benchmarks.reports import publish
from benchmarks.running_service import running

_PAINTED_MS = """
new Promise((resolve) => new PerformanceObserver((entries) => {
  const [paint] = entries.getEntriesByName("first-contentful-paint");
  if (paint) resolve(paint.startTime);
}).observe({type: "paint", buffered: true}))
"""
# Of the page and each of its files the compressed body, and 300 bytes for its head, as counted in
# https://www.w3.org/TR/resource-timing/#dom-performanceresourcetiming-transfersize
_SENT = """
performance.getEntries()
  .filter((each) => each.entryType === "navigation" || each.name.includes("/playground/"))
  .map((each) => each.transferSize)
"""


@dataclass(frozen=True, slots=True)
class Visit:
    painted_ms: float
    num_files: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Visits:
    """Medians of several, and the worst."""

    count: int
    first_contentful_paint_ms: float
    worst_ms: float
    num_files: int
    num_bytes: int

    @classmethod
    def of(cls, visits: Sequence[Visit]) -> "Visits":
        times_ms = [visit.painted_ms for visit in visits]
        return cls(
            count=len(visits),
            first_contentful_paint_ms=round(statistics.median(times_ms), 1),
            worst_ms=round(max(times_ms), 1),
            num_files=visits[0].num_files,
            num_bytes=visits[0].num_bytes,
        )


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    browser: str
    first_visits: Visits
    later_visits: Visits


def visit(page: Page, url: str) -> Visit:
    page.goto(url, wait_until="networkidle")
    sent = page.evaluate(_SENT)
    return Visit(page.evaluate(_PAINTED_MS), sum(map(bool, sent)), sum(sent))


def report(browser: Browser, url: str, count: int) -> Report:
    first, later = [], []
    for _ in range(count):
        context = browser.new_context()  # with an empty cache
        page = context.new_page()
        first.append(visit(page, url))
        page.goto("about:blank")
        later.append(visit(page, url))
        context.close()
    return Report(processor(), browser.version, Visits.of(first), Visits.of(later))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--pictures", type=Path, default=None)
    arguments = parser.parse_args()
    if (path := installed()) is None:
        parser.error("Chromium is not installed: `apt-get install chromium` has it")
    with running("triptych", "serve") as service, browsing(path) as browser:
        measured = report(browser, service.url, arguments.count)
        if arguments.pictures is not None:
            draw(browser, service.url, arguments.pictures)
    publish(measured, arguments.output)


if __name__ == "__main__":
    main()
