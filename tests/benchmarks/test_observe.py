"""What the proof asks of Prometheus, what it makes of the answers, and the pictures of them."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.dashboard_queries import (
    Question,
    UnknownVariableError,
    boards,
    filled_in,
    panels,
    questions,
)
from benchmarks.observation import Asked, Observation
from benchmarks.observe import counts_of
from benchmarks.panel_card import Card, Line, Span
from benchmarks.panel_drawing import Panel, draw_panel, line_name
from benchmarks.panel_units import written
from benchmarks.prometheus_api import Prometheus, Rule, Series
from benchmarks.running_service import free_port
from tests.running_service import poll_until

SPAN = Span(start=1_800_000_000, end=1_800_000_600, step_s=5)


@pytest.mark.parametrize("name", boards())
def test_every_panel_is_asked_and_no_variable_is_left(name: str) -> None:
    board = boards()[name]
    asked = list(questions(name, board))
    assert {panel["title"] for panel in panels(board)} <= {each.title for each in asked}
    assert not any("$" in each.expr for each in asked)


def test_a_variable_without_a_value_is_named() -> None:
    with pytest.raises(UnknownVariableError, match="region is none of __rate_interval, "):
        filled_in('up{region="$region"}')


def test_outcomes_are_counted_by_where_they_were_asked() -> None:
    asked = [
        Asked("api", "a", "x", "data"),
        Asked("api", "b", "y", "failed"),
        Asked("alerts", "C", "z", "quiet"),
    ]
    assert counts_of(asked) == {"api": {"data": 1, "failed": 1}, "alerts": {"quiet": 1}}


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.0, "s", "0 s"),
        (0.25, "s", "250 ms"),
        (90.0, "s", "1.5 min"),
        (0.955, "percentunit", "95.5%"),
        (3 * 2**20, "bytes", "3 MiB"),
        (12_500.0, "suffix: pixels/s", "12.5 K pixels/s"),
        (0.5, "reqps", "0.5 req/s"),
        (2_500_000.0, "Bps", "2.5 MB/s"),
        (300.0, "watt", "300 W"),
        (24.0, "short", "24"),
    ],
)
def test_numbers_have_the_unit_of_the_panel(value: float, unit: str, said: str) -> None:
    assert written(value, unit) == said


def test_a_line_is_named_by_its_legend_or_else_by_its_labels() -> None:
    labels = {"task": "images", "state": "idle"}
    assert line_name("{{task}} p99", labels) == "images p99"
    assert line_name("", labels) == "images, idle"


@pytest.fixture(scope="module")
def observation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observation]:
    """What a real Prometheus saw of itself."""
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed: `apt-get install prometheus` has it")
    directory, port = tmp_path_factory.mktemp("prometheus"), free_port()
    config = {
        "global": {"scrape_interval": "100ms"},
        "scrape_configs": [
            {"job_name": "itself", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        ],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))
    flags = [
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    process = subprocess.Popen(["prometheus", *flags])
    try:
        with Prometheus(f"http://127.0.0.1:{port}") as prometheus:
            poll_until(prometheus.is_ready)
            poll_until(lambda: bool(prometheus.at("up == 1", time.time())))
            end = time.time()
            yield Observation(prometheus, end - 5, end)
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize(
    ("expr", "outcome"),
    [
        ("up", "data"),
        ("sum(rate(nothing_of_the_kind[1m]))", "failed"),
        ("max(triptych_gpu_temperature_celsius)", "rightly empty"),
        ("sum by up", "failed"),
    ],
)
def test_an_expression_is_to_have_data_or_a_reason_to_have_none(
    observation: Observation, expr: str, outcome: str
) -> None:
    assert observation.ask(Question("api", "a panel", expr)).outcome == outcome


@pytest.mark.parametrize(
    ("expr", "outcome"),
    [("up == 1", "data"), ("up == 0", "quiet"), ("triptych_missing > 0", "failed")],
)
def test_an_alert_is_quiet_only_if_what_it_looks_at_is_there(
    observation: Observation, expr: str, outcome: str
) -> None:
    rule = Rule("Alert", expr, is_alert=True, health="ok", error="", state="inactive")
    assert observation.ask_rule(rule).outcome == outcome


@pytest.mark.parametrize(
    ("health", "error", "reason"),
    [
        ("err", "many-to-many matching", "many-to-many matching"),
        ("unknown", "", "its health is unknown"),
    ],
)
def test_a_rule_that_was_not_carried_out_has_failed(
    observation: Observation, health: str, error: str, reason: str
) -> None:
    rule = Rule("Alert", "up == 1", is_alert=True, health=health, error=error, state="inactive")
    asked = observation.ask_rule(rule)
    assert (asked.outcome, asked.reason) == ("failed", reason)


def series(**labels: str) -> Series:
    """Rise, with a gap in the middle."""
    times = [time for time in SPAN.grid() if not 200 < time - SPAN.start < 300]
    return Series(labels, times, [float(i % 7) for i in range(len(times))])


def test_a_gap_stays_one_on_the_grid() -> None:
    values = SPAN.on_grid(series())
    assert len(values) == 121
    assert [*map(bool, values[38:44] == values[38:44])] == [True] * 3 + [False] * 3


def panels_by_kind() -> dict[str, list[Panel]]:
    """The panels of all dashboards, one of each way of drawing."""
    found: dict[str, dict[str, Panel]] = {}
    for board in boards().values():
        for panel in panels(board):
            if panel["type"] != "row":
                options = panel.get("fieldConfig", {})
                custom = options.get("defaults", {}).get("custom", {})
                way = json.dumps([custom, options.get("overrides", [])])
                found.setdefault(panel["type"], {}).setdefault(way, panel)
    return {kind: list(ways.values()) for kind, ways in found.items()}


@pytest.mark.parametrize("kind", panels_by_kind())
@pytest.mark.parametrize("lines", [[], ["0.5", "1", "+Inf"]], ids=["no data", "data"])
def test_every_kind_of_panel_is_drawn_within_its_card(kind: str, lines: list[str]) -> None:
    found = [Line(each, series(le=each, task="images")) for each in lines]
    for panel in panels_by_kind()[kind]:
        figure = Figure(figsize=(6, 3), dpi=50)
        draw_panel(Card(figure, 0, 0, 300, 150), panel, found, SPAN)
        assert panel["title"] in {text.get_text() for text in figure.texts}
        for axes in figure.axes:
            box = axes.get_position()
            assert 0 <= box.x0 < box.x1 <= 1.001
            assert 0 <= box.y0 < box.y1 <= 1.001


@pytest.mark.parametrize("name", ["overview", "images"])
def test_the_pictures_of_the_pages_are_small(name: str) -> None:
    file = Path(__file__).parents[2] / "docs" / f"dashboard_{name}.png"
    with Image.open(file) as picture:
        assert picture.width == 1400
    assert file.stat().st_size <= 200 * 1024
