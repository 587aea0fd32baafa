"""Draw a dashboard as a picture: `python -m benchmarks.panels overview --output overview.png`.

Asks a running Prometheus what Grafana would ask it, and draws the answers much as Grafana does, for
pages that show what there is to see. It is no screenshot.
"""

import argparse
import io
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.dashboard_queries import Board, boards, filled_in
from benchmarks.panel_card import DIM, PAGE, TEXT, Card, Line, Span
from benchmarks.panel_drawing import Panel, draw_panel, line_name
from benchmarks.prometheus_api import Prometheus, Series

_NUM_COLUMNS: Final = 24  # of Grafana's grid
_WIDTH_PX, _UNIT_PX, _GAP_PX, _HEADER_PX = 1400, 34, 8, 58
_DPI = 100
_NUM_COLORS = 128
_SHORTEST_STEP_S, _MOST_STEPS = 5.0, 720


def draw(board: Board, prometheus: Prometheus, start: float, end: float, path: Path) -> None:
    """Draw what was to see from `start` to `end` into a PNG file."""
    span = Span(start, end, max(_SHORTEST_STEP_S, (end - start) / _MOST_STEPS))
    num_units = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in board["panels"])
    height = _HEADER_PX + num_units * _UNIT_PX + _GAP_PX
    figure = Figure(figsize=(_WIDTH_PX / _DPI, height / _DPI), dpi=_DPI, facecolor=PAGE)
    canvas = FigureCanvasAgg(figure)
    with rc_context({"font.family": "DejaVu Sans"}):
        _write_header(figure, board, span)
        for panel in board["panels"]:
            card = _card(figure, panel)
            if panel["type"] == "row":
                card.write(4, card.height / 2 + 2, panel["title"], fontsize=13, fontweight="bold")
            else:
                draw_panel(card, panel, list(_lines(panel, prometheus, span)), span)
        _save(canvas, path)


def _write_header(figure: Figure, board: Board, span: Span) -> None:
    page = Card(figure, 0, 0, _WIDTH_PX, _HEADER_PX)
    page.write(_GAP_PX + 4, 24, board["title"], color=TEXT, fontsize=17, fontweight="bold")
    day, begin, end = (
        datetime.fromtimestamp(at, UTC).strftime(form)
        for at, form in ((span.start, "%Y-%m-%d"), (span.start, "%H:%M"), (span.end, "%H:%M"))
    )
    said = f"{day}, {begin} to {end} UTC; drawn from the dashboard's own queries, no screenshot"
    page.write(_WIDTH_PX - _GAP_PX - 4, 26, said, color=DIM, ha="right")


def _card(figure: Figure, panel: Panel) -> Card:
    at, column = panel["gridPos"], (_WIDTH_PX - _GAP_PX) / _NUM_COLUMNS
    return Card(
        figure,
        left=_GAP_PX + at["x"] * column,
        top=_HEADER_PX + at["y"] * _UNIT_PX,
        width=at["w"] * column - _GAP_PX,
        height=at["h"] * _UNIT_PX - _GAP_PX,
    )


def _lines(panel: Panel, prometheus: Prometheus, span: Span) -> Iterator[Line]:
    for target in panel["targets"]:
        for series in _series(target, prometheus, span):
            yield Line(line_name(target.get("legendFormat", ""), series.labels), series)


def _series(target: Any, prometheus: Prometheus, span: Span) -> list[Series]:  # noqa: ANN401
    expr = filled_in(target["expr"])
    if target.get("instant"):
        return prometheus.at(expr, span.end)
    return prometheus.over(expr, span.start, span.end, span.step_s)


def _save(canvas: FigureCanvasAgg, path: Path) -> None:
    """With a palette: few colors are in it, and the file is a third of the size."""
    drawn = io.BytesIO()
    canvas.print_figure(drawn, format="png")
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(_NUM_COLORS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dashboard", choices=[*boards()])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its address")
    parser.add_argument("--minutes", type=float, default=10, help="until now")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    end = time.time()
    start, board = end - 60 * arguments.minutes, boards()[arguments.dashboard]
    with Prometheus(arguments.prometheus) as prometheus:
        draw(board, prometheus, start, end, arguments.output)


if __name__ == "__main__":
    main()
