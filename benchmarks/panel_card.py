"""The card of a panel: where it lies on its page, and the text, legend and axes that it has.

Knows nothing of the kinds of panel.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from benchmarks.panel_units import written
from benchmarks.prometheus_api import Series

PAGE, CARD, BORDER = "#111217", "#181b1f", "#2a2d33"
TEXT, DIM, GRID = "#d8d9da", "#9094a0", "#26292f"
PALETTE: Final = (
    *("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#56a64b"),
    *("#fade2a", "#3274d9", "#fa6400", "#e02f44", "#a352cc", "#c8f2c2", "#ffee52", "#c0d8ff"),
)
PADDING_PX, TITLE_PX, TICKS_PX, LINE_PX = 12, 30, 24, 18
RIGHT_PX, _TICK_GAP_PX, GAP_PX = 16, 8, 18
SIZE_PT = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """A series under the name that the panel gives it."""

    name: str
    series: Series


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is shown, and how far apart its values are."""

    start: float
    end: float
    step_s: float

    def grid(self) -> NDArray[np.float64]:
        return np.arange(self.start, self.end + self.step_s / 2, self.step_s)

    def on_grid(self, series: Series) -> NDArray[np.float64]:
        """Its values at each step; where there is none, not a number."""
        values = np.full(len(self.grid()), np.nan)
        steps = np.rint((np.array(series.times) - self.start) / self.step_s).astype(int)
        values[steps] = series.values
        return values


@dataclass(frozen=True, slots=True)
class Card:
    """The place of a panel on its page, in pixels from the upper left corner."""

    figure: Figure
    left: float
    top: float
    width: float
    height: float

    def axes(self, left: float, top: float, right: float, bottom: float) -> Axes:
        """What is left of the card within these margins."""
        width, height = self.figure.get_size_inches() * self.figure.dpi
        low = height - self.top - self.height + bottom
        size = ((self.width - left - right) / width, (self.height - top - bottom) / height)
        axes = self.figure.add_axes(((self.left + left) / width, low / height, *size))
        axes.set_facecolor("none")
        return axes

    def write(self, x: float, y: float, text: str, **style: Any) -> Any:  # noqa: ANN401
        """Write at a place in the card, in pixels from its upper left corner."""
        width, height = self.figure.get_size_inches() * self.figure.dpi
        given: dict[str, Any] = {"color": TEXT, "fontsize": SIZE_PT, "va": "center"} | style
        return self.figure.text((self.left + x) / width, 1 - (self.top + y) / height, text, **given)

    def fill(self, color: str) -> None:
        axes = self.axes(0, 0, 0, 0)
        axes.set_axis_off()
        box = FancyBboxPatch(
            (0, 0), 1, 1, boxstyle="square,pad=0", facecolor=color, edgecolor=BORDER, linewidth=1.5
        )
        axes.add_patch(box)
        axes.set(xlim=(0, 1), ylim=(0, 1))


def without_ticks(axes: Axes, span: Span) -> None:
    axes.set_axis_off()
    axes.set_xlim(span.start, span.end)
    axes.margins(0)


def with_ticks(axes: Axes, span: Span, unit: str | None) -> None:
    axes.set_xlim(span.start, span.end)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=DIM, labelsize=SIZE_PT - 1, length=0, pad=5)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(5, min_n_ticks=3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, unit)))
    axes.set_xticks(*_times(span))


def _times(span: Span) -> tuple[list[float], list[str]]:
    """Round minutes, at most eight."""
    minutes = next(each for each in (1, 2, 5, 10, 30, 60, 180, 720, 1440)
                   if (span.end - span.start) / 60 / each <= 8 or each == 1440)  # fmt: skip
    first = math.ceil(span.start / 60 / minutes)
    last = math.floor((span.end - 0.03 * (span.end - span.start)) / 60 / minutes)  # has room
    places = [60.0 * minutes * i for i in range(first, last + 1)]
    return places, [datetime.fromtimestamp(each, UTC).strftime("%H:%M") for each in places]


def limit(axes: Axes, defaults: Mapping[str, Any]) -> None:
    low, _ = axes.get_ylim()
    values = [value for line in axes.lines for value in np.asarray(line.get_ydata(), float)]
    top = max((value for value in values if not math.isnan(value)), default=0)
    high = defaults.get("max", top * 1.12 if top > 0 else 1)
    axes.set_ylim(defaults.get("min", min(0, low)), high)
    if defaults.get("unit") == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(2 ** math.ceil(math.log2(high / 5))))


def draw_thresholds(axes: Axes, defaults: Mapping[str, Any]) -> None:
    """Where one is far above all values the axis stays as it is."""
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is not None:
            color = PALETTE[4] if step["color"] == "red" else "#ff9830"
            axes.axhline(step["value"], color=color, linewidth=1, linestyle=(0, (5, 4)))


def make_room(card: Card, axes: Axes, others: Axes) -> None:
    """Move the axes inwards, so that the names of their ticks have room beside them."""
    place = axes.get_position()
    page_px = card.figure.get_size_inches()[0] * card.figure.dpi
    left = (_widest_px(axes) + PADDING_PX + _TICK_GAP_PX) / page_px
    right = 0.0 if others is axes else (_widest_px(others) + _TICK_GAP_PX) / page_px
    for each in (axes, others):
        each.set_position((place.x0 + left, place.y0, place.width - left - right, place.height))


def _widest_px(axes: Axes) -> float:
    return max(label.get_window_extent().width for label in axes.get_yticklabels())


def write_legend(card: Card, names: Sequence[str]) -> int:
    """Set the names side by side in at most two rows below the curves; return how many."""
    widths = [width_px(card, name, SIZE_PT - 1) + 16 + GAP_PX for name in names]
    rows = _in_rows(widths, card.width - 2 * PADDING_PX)
    for index, row in enumerate(rows[:2]):
        x = float(PADDING_PX)
        y = card.height - 13 - LINE_PX * (min(len(rows), 2) - 1 - index)
        for number in row:
            card.write(x, y, "\u2501", color=colors(len(names))[number], fontweight="bold")
            card.write(x + 16, y, names[number], color=DIM, fontsize=SIZE_PT - 1)
            x += widths[number]
    if num_left := sum(map(len, rows[2:])):
        card.write(card.width - PADDING_PX, 18, f"and {num_left} more", color=DIM, ha="right")
    return min(len(rows), 2)


def width_px(card: Card, text: str, size_pt: float = SIZE_PT) -> float:
    sample = card.write(0, 0, text, fontsize=size_pt)
    width: float = sample.get_window_extent().width
    sample.remove()
    return width


def _in_rows(widths: Sequence[float], room: float) -> list[list[int]]:
    """Which of them go into each row, in turn."""
    rows: list[list[int]] = [[]]
    for number, width in enumerate(widths):
        if rows[-1] and sum(widths[each] for each in rows[-1]) + width > room:
            rows.append([])
        rows[-1].append(number)
    return rows


def colors(number: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(number)]
