"""The dashboards against the types that Grafana publishes in `@grafana/schema` on npm."""

import re
from pathlib import Path

import pytest

from dashboards.__main__ import FOLDER
from tests.node import type_errors

HERE = Path(__file__).parent
OPTIONS = ("--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler")


def complaints(folder: Path, **boards: str) -> str:
    """Return what TypeScript says of the texts of dashboards."""
    source = folder / "boards.ts"
    constants = [f"export const {name}: DashboardJson = {text};" for name, text in boards.items()]
    header = f'import type {{ DashboardJson }} from "{HERE}/dashboard";'
    source.write_text("\n".join([header, *constants]), encoding="utf-8")
    return type_errors(HERE / "node_modules", *OPTIONS, str(source))


def test_every_dashboard_is_one_by_grafanas_schema(tmp_path: Path) -> None:
    boards = {file.stem.replace("-", "_"): file.read_text() for file in FOLDER.glob("*.json")}
    assert complaints(tmp_path, **boards) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"title": "Alerts that fire"', '"titel": "Alerts that fire"'),
        ('"mode": "normal"', '"mode": "sideways"'),
        ('"lineWidth": 2', '"lineWidth": "2"'),
        ('"type": "stat"', '"type": "statt"'),
        ('"graphTooltip": 1', '"graphTooltip": 7'),
    ],
)
def test_grafanas_schema_finds_a_mistake(right: str, wrong: str, tmp_path: Path) -> None:
    text = (FOLDER / "overview.json").read_text()
    assert right in text
    assert re.search(r"error TS\d+", complaints(tmp_path, overview=text.replace(right, wrong)))
