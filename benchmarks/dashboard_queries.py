"""What the dashboards ask of Prometheus, with Grafana's variables filled in.

Knows nothing of how it is drawn.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

BOARDS = Path(__file__).parents[1] / "dashboards" / "grafana"

# As Grafana fills them in for a range of ten minutes to six hours, with all values chosen.
_VARIABLES = {
    "__rate_interval": "1m",
    "__range": "10m",
    "task": ".*",
    "model": ".*",
    "instance": ".*",
}
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")

Board: TypeAlias = Mapping[str, Any]  # as Grafana's schema has it


class UnknownVariableError(Exception):
    """Raised for a variable that has no value here."""


@dataclass(frozen=True, slots=True)
class Question:
    """An expression, or the values of a label where one is named."""

    board: str
    title: str
    expr: str
    label: str | None = None


def boards() -> Mapping[str, Board]:
    """Each dashboard by the name of its file."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(BOARDS.glob("*.json"))}


def panels(board: Board) -> Sequence[Mapping[str, Any]]:
    """Those of a dashboard, but for the titles of its rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def questions(name: str, board: Board) -> Iterator[Question]:
    """All that a dashboard asks: for its panels, its annotations and the choice of variables."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield Question(name, panel["title"], filled_in(target["expr"]))
    for annotation in board["annotations"]["list"]:
        yield Question(name, annotation["name"], filled_in(annotation["expr"]))
    for variable in board["templating"]["list"]:
        if (found := _LABEL_VALUES.fullmatch(variable["query"])) is not None:
            yield Question(name, f"${variable['name']}", found[1], found[2])


def filled_in(expr: str) -> str:
    return re.sub(r"\$\{?(\w+)\}?", _value, expr)


def _value(variable: re.Match[str]) -> str:
    if (name := variable[1]) not in _VARIABLES:
        raise UnknownVariableError(f"{name} is none of {', '.join(_VARIABLES)}")
    return _VARIABLES[name]
