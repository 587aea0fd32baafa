"""The expressions of all dashboards and rules, and what is asked for in them.

Reads as much of PromQL as ours use: https://prometheus.io/docs/prometheus/latest/querying/basics
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from benchmarks.dashboard_queries import BOARDS, Question, boards, questions

RULES = BOARDS.parent / "prometheus" / "rules"
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\}|(?![\w:]*\s*\())")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"')
_KEYWORDS = {"and", "or", "unless", "bool"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of Prometheus: an alert, or one that records a series under a name."""

    name: str
    expr: str
    is_alert: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def of_boards() -> list[Question]:
    """All that the dashboards ask: for panels, annotations and variables."""
    return [each for name, board in boards().items() for each in questions(name, board)]


def rules() -> list[Rule]:
    files = [yaml.safe_load(file.read_text()) for file in sorted(RULES.glob("*.yml"))]
    return [_rule(each) for file in files for group in file["groups"] for each in group["rules"]]


def series_of(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Each series that is asked for, with the labels that choose among its kind."""
    bare = re.sub(r"\[[^\]]*\](\s*offset \w+)?", "", _GROUPING.sub("", expr))
    for name, matchers in _SELECTOR.findall(bare):
        if name not in _KEYWORDS:
            yield name, set(_MATCHER.findall(matchers))


def grouped_by(expr: str) -> set[str]:
    """The labels by which an expression groups or matches its series."""
    lists = ",".join(_GROUPING.findall(expr))
    return {label.strip() for label in lists.split(",") if label.strip()}


def _rule(written: Mapping[str, object]) -> Rule:
    is_alert = "alert" in written
    labels, annotations = written.get("labels", {}), written.get("annotations", {})
    assert isinstance(labels, dict)
    assert isinstance(annotations, dict)
    name = str(written["alert" if is_alert else "record"])
    return Rule(name, str(written["expr"]), is_alert, labels, annotations)
