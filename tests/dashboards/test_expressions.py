"""What dashboards and rules ask for is exported, and Prometheus can read how they ask."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from redis import Redis

from tests.dashboards.exported import OF_TARGETS, exported
from tests.dashboards.expressions import grouped_by, of_boards, rules, series_of
from tests.dashboards.promtool import promtool

EXPRESSIONS = [*(question.expr for question in of_boards()), *(rule.expr for rule in rules())]
# The labels that our rules give to what they record.
RECORDED = {rule.name for rule in rules() if not rule.is_alert}
OF_RECORDED = {"slo", "task", "pixels_bucket"}


def family_of(series: str) -> str:
    """The metric whose series it is: a histogram has three of them."""
    return re.sub("_(bucket|sum|count)$", "", series)


@pytest.fixture
def labels(redis: Redis, tmp_path: Path) -> Iterator[Mapping[str, set[str]]]:
    """The labels of each series by its name; of a Redis with a limit and a file."""
    redis.config_set("maxmemory", 1 << 30)
    redis.config_set("appendonly", "yes")
    yield {**exported(redis, tmp_path), **dict.fromkeys(RECORDED, OF_RECORDED)}
    redis.config_set("maxmemory", 0)
    redis.config_set("appendonly", "no")


def test_every_series_and_label_that_is_asked_for_is_exported(
    labels: Mapping[str, set[str]],
) -> None:
    for expr in EXPRESSIONS:
        known = set(OF_TARGETS)
        for name, asked in series_of(expr):
            assert name in labels, f"{name} is not exported: {expr}"
            assert asked <= labels[name] | OF_TARGETS, f"{name} has other labels: {expr}"
            known |= labels[name]
        assert grouped_by(expr) <= known, expr


def test_every_variable_chooses_among_the_values_of_a_label_that_is_there(
    labels: Mapping[str, set[str]],
) -> None:
    of_variables = [question for question in of_boards() if question.label is not None]
    assert of_variables
    for question in of_variables:
        ((series, _),) = series_of(question.expr)
        assert question.label in labels[series] | OF_TARGETS


def test_every_series_that_is_exported_is_shown_or_watched(
    labels: Mapping[str, set[str]],
) -> None:
    asked = {family_of(name) for expr in EXPRESSIONS for name, _ in series_of(expr)}
    ours = {family_of(name) for name in labels if name.startswith("triptych_")}
    assert ours - asked == set()


def test_prometheus_reads_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    written = [
        {"record": f"panel:{number}", "expr": question.expr}
        for number, question in enumerate(of_boards())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": written}]}))
    assert len(written) > 80
    promtool("check", "rules", file)


@pytest.mark.parametrize(
    ("expr", "series", "grouping"),
    [
        ("up", [("up", set())], set()),
        (
            'sum by (a, le) (rate(x_bucket{b=~"c|d",e!="f"}[5m]))',
            [("x_bucket", {"b", "e"})],
            {"a", "le"},
        ),
        (
            "a:b:c > 14.4 and on (d) (e or 0 * f) > bool 2",
            [("a:b:c", set()), ("e", set()), ("f", set())],
            {"d"},
        ),
        ("min_over_time(min by (task) (x)[5m:1m])", [("x", set())], {"task"}),
        ('absent(up{job="x"} == 1)', [("up", {"job"})], set()),
    ],
)
def test_an_expression_is_read_for_its_series_and_labels(
    expr: str, series: list[tuple[str, set[str]]], grouping: set[str]
) -> None:
    assert list(series_of(expr)) == series
    assert grouped_by(expr) == grouping
