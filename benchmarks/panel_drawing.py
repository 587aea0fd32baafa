"""Each kind of panel, drawn much as Grafana does, into the space of its card.

Knows nothing of dashboards or where the series come from.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.colors import PowerNorm

from benchmarks.panel_card import (
    CARD,
    DIM,
    GAP_PX,
    LINE_PX,
    PADDING_PX,
    RIGHT_PX,
    SIZE_PT,
    TEXT,
    TICKS_PX,
    TITLE_PX,
    Card,
    Line,
    Span,
    colors,
    draw_thresholds,
    limit,
    make_room,
    width_px,
    with_ticks,
    without_ticks,
    write_legend,
)
from benchmarks.panel_units import written

_COLORS: Final = {"green": "#3f8f4a", "orange": "#d9730d", "red": "#c4314b", "blue": "#3274d9"}
_NOTHING: Final = "#44484f"

Panel = Mapping[str, Any]  # as Grafana's schema has it


def draw_panel(card: Card, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    _KINDS[panel["type"]](card, panel, lines, span)


def _number(card: Card, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    defaults = _defaults(panel)
    value = lines[0].series.values[-1] if lines else None
    card.fill(_color_of(value, defaults))
    if lines:
        axes = card.axes(0, card.height * 0.68, 0, 0)
        values = span.on_grid(lines[0].series)
        without_ticks(axes, span)
        axes.fill_between(span.grid(), 0, values, color="white", alpha=0.13, linewidth=0)
        axes.plot(span.grid(), values, color="white", alpha=0.45, linewidth=1.2)
        axes.set_ylim(min(0, np.nanmin(values)), max(np.nanmax(values) * 1.1, 1e-9))
    text = defaults.get("noValue", "No data") if value is None else _said(value, defaults)
    fit = (card.width - 2 * PADDING_PX) / width_px(card, panel["title"])
    card.write(PADDING_PX, 18, panel["title"], color="white", fontsize=SIZE_PT * min(1, fit))
    large = {"color": "white", "fontsize": 25 if len(text) < 9 else 19, "fontweight": "bold"}
    card.write(card.width / 2, card.height * 0.47, text, ha="center", **large)


def _curves(card: Card, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    defaults = _defaults(panel)
    custom = defaults.get("custom", {})
    _framed(card, panel)
    if not lines:
        _no_data(card)
        return
    units = {line.name: _override(panel, line.name, "unit") for line in lines}
    right = {name for name in units if _override(panel, name, "custom.axisPlacement") == "right"}
    num_rows = write_legend(card, [line.name for line in lines])
    axes = card.axes(0, TITLE_PX + 4, RIGHT_PX, TICKS_PX + num_rows * LINE_PX + 6)
    others = axes.twinx() if right else axes
    with_ticks(axes, span, defaults.get("unit"))
    if right:
        with_ticks(others, span, units[next(iter(right))])
        others.grid(visible=False)
    is_stacked = custom.get("stacking", {}).get("mode") == "normal"
    below = np.zeros(len(span.grid()))
    for line, color in zip(lines, colors(len(lines)), strict=True):
        values, chosen = span.on_grid(line.series), others if line.name in right else axes
        base, edge = np.zeros_like(below), values
        if is_stacked:
            base, values = below, below + np.nan_to_num(values)
            edge, below = np.where(edge > 0, values, np.nan), values  # nothing has no edge
        alpha = custom.get("fillOpacity", 0) / 100
        chosen.fill_between(span.grid(), base, values, color=color, alpha=alpha, linewidth=0)
        chosen.plot(span.grid(), edge, color=color, linewidth=1.6, solid_joinstyle="round")
    for one in {axes, others}:
        limit(one, defaults if one is axes else {})
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        draw_thresholds(axes, defaults)
    make_room(card, axes, others)


def _density(card: Card, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    """Of cumulative buckets, each by the upper limit that is its name."""
    _framed(card, panel)
    if not lines:
        _no_data(card)
        return
    ordered = sorted(lines, key=lambda line: float(line.name))
    cumulative = np.nan_to_num(np.array([span.on_grid(line.series) for line in ordered]))
    counts = np.clip(np.diff(cumulative, axis=0, prepend=0), 0, None)
    shown = np.flatnonzero(counts.sum(axis=1) > 0)
    first, last = (shown[0], shown[-1]) if len(shown) else (0, len(ordered) - 1)
    counts = counts[first : last + 1]
    axes = card.axes(0, TITLE_PX + 4, RIGHT_PX, TICKS_PX + 8)
    with_ticks(axes, span, None)
    axes.grid(visible=False)
    edges = np.append(span.grid(), span.grid()[-1] + span.step_s)
    axes.pcolormesh(
        edges,
        np.arange(len(counts) + 1),
        np.ma.masked_less_equal(counts, 1e-9),
        cmap="turbo",
        norm=PowerNorm(0.5, 0, max(float(counts.max()), 1e-9)),
    )
    axes.set_xlim(span.start, span.end)
    unit = _defaults(panel).get("unit")
    each = max(1, math.ceil(len(counts) / 8))
    names = [_limit_name(line.name, unit) for line in ordered[first : last + 1]]
    axes.set_yticks(np.arange(1, len(counts) + 1)[::each], names[::each])
    make_room(card, axes, axes)


def _limit_name(limit: str, unit: str | None) -> str:
    return "more" if math.isinf(float(limit)) else written(float(limit), unit)


def _periods(card: Card, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    _framed(card, panel)
    if not lines:
        _no_data(card)
        return
    defaults = _defaults(panel)
    axes = card.axes(0, TITLE_PX + 4, RIGHT_PX, TICKS_PX + 8)
    with_ticks(axes, span, None)
    axes.grid(visible=False)
    for row, line in enumerate(lines):
        for time, value in zip(line.series.times, line.series.values, strict=True):
            color = _color_of(value, defaults) if value else _NOTHING
            axes.barh(row, span.step_s, left=time, height=0.7, color=color, linewidth=0)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    make_room(card, axes, axes)


def _listing(card: Card, panel: Panel, lines: Sequence[Line], span: Span) -> None:
    del span  # it lists what is now
    _framed(card, panel)
    if not lines:
        _no_data(card, _defaults(panel).get("noValue", "No data"))
        return
    hidden: set[str] = set()
    for change in panel.get("transformations", []):
        hidden |= set(change["options"].get("excludeByName", {}))
    rows = [{k: v for k, v in line.series.labels.items() if k not in hidden} for line in lines]
    num_shown = int((card.height - TITLE_PX - 30) // 21)
    num_hidden, rows = len(rows) - num_shown, rows[:num_shown]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    widths = [
        max(width_px(card, text) for text in (name, *(row.get(name, "") for row in rows)))
        for name in columns
    ]
    needed = sum(widths) + GAP_PX * len(widths)
    fit = min(1.0, (card.width - 2 * PADDING_PX) / needed)
    places = [PADDING_PX + fit * (sum(widths[:i]) + GAP_PX * i) for i in range(len(widths))]
    for column, x in zip(columns, places, strict=True):
        size = SIZE_PT * fit
        card.write(x, TITLE_PX + 12, column, color="#6e9fff", fontsize=size)
        for number, row in enumerate(rows):
            value = row.get(column, "")
            color = {"firing": "#f2495c", "page": "#f2495c", "pending": "#ff9830"}.get(value, TEXT)
            card.write(x, TITLE_PX + 34 + 21 * number, value, color=color, fontsize=size)
    if num_hidden > 0:
        more = f"and {num_hidden} more"
        card.write(card.width - PADDING_PX, 18, more, color=DIM, ha="right")


_KINDS: Final[Mapping[str, Callable[[Card, Panel, Sequence[Line], Span], None]]] = {
    "stat": _number,
    "timeseries": _curves,
    "heatmap": _density,
    "state-timeline": _periods,
    "table": _listing,
}


def line_name(legend: str, labels: Mapping[str, str]) -> str:
    """Fill in a legend such as `{{task}} p99`; without one the labels tell."""
    if legend:
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)
    return ", ".join(labels.values()) or "value"


def _framed(card: Card, panel: Panel) -> None:
    card.fill(CARD)
    card.write(PADDING_PX, 18, panel["title"])


def _no_data(card: Card, text: str = "No data") -> None:
    card.write(card.width / 2, card.height * 0.55, text, color=DIM, ha="center")


def _override(panel: Panel, name: str, what: str) -> Any:  # noqa: ANN401  # as its option has it
    for override in panel.get("fieldConfig", {}).get("overrides", []):
        if override["matcher"]["options"] == name:
            for each in override["properties"]:
                if each["id"] == what:
                    return each["value"]
    return None


def _defaults(panel: Panel) -> Mapping[str, Any]:
    """Its unit, limits and colors, as far as it has any."""
    defaults: Mapping[str, Any] = panel.get("fieldConfig", {}).get("defaults", {})
    return defaults


def _color_of(value: float | None, defaults: Mapping[str, Any]) -> str:
    """By the last step that the value reaches; the first has no lower end."""
    steps = defaults.get("thresholds", {}).get("steps", [])
    reached = [
        step["color"]
        for step in steps
        if step["value"] is None or (value is not None and value >= step["value"])
    ]
    if value is None:
        return _NOTHING
    return _COLORS[reached[-1]] if reached else _COLORS["green"]


def _said(value: float, defaults: Mapping[str, Any]) -> str:
    for mapping in defaults.get("mappings", []):
        if (found := mapping["options"].get(f"{value:g}")) is not None:
            return str(found["text"])
    return written(value, defaults.get("unit"), defaults.get("decimals"))
