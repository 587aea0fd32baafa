"""Questions to a running Prometheus: https://prometheus.io/docs/prometheus/latest/querying/api"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx

_TIMEOUT_S = 60.0


class QueryError(Exception):
    """Raised where Prometheus cannot read an expression, or carry it out."""


@dataclass(frozen=True, slots=True)
class Series:
    """What is not a number (0 / 0) is left out."""

    labels: Mapping[str, str]
    times: Sequence[float]  # Unix time, s
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    expr: str
    is_alert: bool
    health: str  # of its last evaluation: ok or err; unknown where there was none yet
    error: str  # what went wrong then; empty where nothing did
    state: str  # of an alert: inactive, pending or firing; empty for a recording


class Prometheus:
    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def is_ready(self) -> bool:
        """Whether it answers questions: after its start it reads its log first."""
        try:
            return self._http.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def at(self, expr: str, time: float) -> list[Series]:
        found = self._ask("query", query=expr, time=time)["result"]
        return _with_values(_series(each["metric"], [each["value"]]) for each in found)

    def over(self, expr: str, start: float, end: float, step_s: float) -> list[Series]:
        answer = self._ask("query_range", query=expr, start=start, end=end, step=step_s)
        return _with_values(_series(each["metric"], each["values"]) for each in answer["result"])

    def value(self, expr: str, time: float) -> float:
        """Of an expression that has just one."""
        (series,) = self.at(expr, time)
        return series.values[0]

    def label_values(self, label: str, selector: str) -> list[str]:
        found: list[str] = self._ask(f"label/{label}/values", **{"match[]": selector})
        return found

    def rules(self) -> list[Rule]:
        groups = self._ask("rules")["groups"]
        return [_rule(each) for group in groups for each in group["rules"]]

    def _ask(self, path: str, **parameters: str | float) -> Any:  # noqa: ANN401  # one per path
        answer = self._http.get(f"/api/v1/{path}", params=parameters)
        content = answer.json()
        if content["status"] != "success":
            raise QueryError(content["error"])
        return content["data"]


def _series(labels: Mapping[str, str], pairs: Sequence[tuple[float, str]]) -> Series:
    points = [(time, float(value)) for time, value in pairs]
    points = [(time, value) for time, value in points if not math.isnan(value)]
    return Series(labels, [time for time, _ in points], [value for _, value in points])


def _with_values(found: Iterable[Series]) -> list[Series]:
    return [series for series in found if series.values]


def _rule(said: Mapping[str, str]) -> Rule:
    return Rule(
        name=said["name"],
        expr=said["query"],
        is_alert=said["type"] == "alerting",
        health=said["health"],
        error=said.get("lastError", ""),
        state=said.get("state", ""),
    )
