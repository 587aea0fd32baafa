"""The dashboards: as their source makes them, readable, and leading on to one another."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import dashboard_queries
from dashboards.__main__ import FOLDER, files
from tests.dashboards.expressions import rules

BOARDS = dashboard_queries.boards()
each_board = pytest.mark.parametrize("name", list(BOARDS))


def panels(name: str) -> list[Mapping[str, Any]]:
    return list(dashboard_queries.panels(BOARDS[name]))


def test_the_files_are_what_make_dashboards_writes() -> None:
    written = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")}
    assert written == files()


def test_there_are_nine_dashboards() -> None:
    assert len(BOARDS) == 9


@each_board
def test_each_panel_asks_something_and_tells_what_is_normal_and_what_to_do(name: str) -> None:
    for panel in panels(name):
        assert panel["title"]
        assert re.fullmatch(r"Normal: .+\n\nOtherwise: .+", panel["description"]), panel["title"]
        assert panel["targets"]


@each_board
def test_each_panel_with_numbers_has_a_unit(name: str) -> None:
    counted = {"stat", "state-timeline", "table"}  # counts, words and lists may have none
    unitless = [
        panel["title"]
        for panel in panels(name)
        if panel["type"] not in counted and "unit" not in panel["fieldConfig"]["defaults"]
    ]
    # a burn rate is a bare factor
    assert [title for title in unitless if not title.startswith("How fast, over")] == []


@each_board
def test_no_panel_lies_on_another(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels(name):
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        taken |= cells


@each_board
def test_a_dashboard_has_the_variables_that_it_uses_and_no_others(name: str) -> None:
    text = str(BOARDS[name]["panels"]).replace("$__rate_interval", "").replace("$__range", "")
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__url_time_range", "__all_variables"}
    assert {variable["name"] for variable in BOARDS[name]["templating"]["list"]} == used


def test_links_lead_to_dashboards_that_exist() -> None:
    addresses = {board["uid"] for board in BOARDS.values()}
    links = set(re.findall(r"/d/([\w-]+)", str(BOARDS)))
    assert len(links) > 5
    assert links <= addresses


def test_the_dashboards_name_alerts_that_exist() -> None:
    named = set(re.findall(r"\bTriptych[A-Z]\w+", str(BOARDS)))
    assert named
    assert named <= {rule.name for rule in rules() if rule.is_alert}


def test_grafana_finds_the_dashboards_where_compose_lays_them() -> None:
    compose = (Path(__file__).parents[2] / "docker-compose.yml").read_text()
    provider = (FOLDER / "provisioning" / "dashboards" / "triptych.yml").read_text()
    (path,) = re.findall(r"path: (\S+)", provider)
    assert f"./dashboards/grafana:{path}:ro" in compose
    assert f"{path}/overview.json" in compose
