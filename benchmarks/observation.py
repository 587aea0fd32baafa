"""What a Prometheus saw in some time: the answers to all that is asked of it, alerts, scrapes.

Knows nothing of what happened meanwhile.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from benchmarks.dashboard_queries import Question
from benchmarks.prometheus_api import Prometheus, QueryError, Rule

_STEP_S = 5.0

# Metrics that need not be there, and why, where none of the kind is: an expression that names one
# has nothing to show.
RIGHTLY_EMPTY: Mapping[str, str] = {
    "triptych_gpu_(memory|utilization|power|temperature|energy|ecc)_.+": "no NVIDIA GPU here",
    "triptych_memory_budget_bytes": "workers on the CPU have no memory budget",
}
_NAME = re.compile(r"\b(?:triptych[:_][\w:]+|process_\w+|up)\b")
_STRING = re.compile(r'"[^"]*"')

# Quiet is an alert whose condition does not hold.
Outcome: TypeAlias = Literal["data", "quiet", "rightly empty", "failed"]


@dataclass(frozen=True, slots=True)
class Asked:
    """An expression and what came of it."""

    where: str  # a dashboard's file, "alerts" or "recordings"
    title: str  # of the panel, or the rule's name
    expr: str
    outcome: Outcome
    reason: str = ""
    num_series: int = 0


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    pending_s: float
    firing_s: float
    state: str  # at the end


@dataclass(frozen=True, slots=True)
class Target:
    """What Prometheus says of the scrapes of one address, under load."""

    name: str  # service, or the worker's
    mean_ms: float
    max_ms: float
    num_series: int


class Observation:
    """A Prometheus, and the time that it saw."""

    def __init__(self, prometheus: Prometheus, start: float, end: float) -> None:
        self.prometheus, self.start, self.end = prometheus, start, end

    def num_series(self, expr: str) -> int:
        return len(self.prometheus.over(expr, self.start, self.end, _STEP_S))

    def ask(self, question: Question) -> Asked:
        try:
            num_series = self.num_answers(question)
        except QueryError as error:
            return _asked(question, "failed", str(error))
        if num_series:
            return _asked(question, "data", num_series=num_series)
        for names, why in RIGHTLY_EMPTY.items():
            if re.search(names, question.expr) and not self.num_series(f'{{__name__=~"{names}"}}'):
                return _asked(question, "rightly empty", why)
        return _asked(question, "failed", "no data")

    def num_answers(self, question: Question) -> int:
        if question.label is None:
            return self.num_series(question.expr)
        return len(self.prometheus.label_values(question.label, question.expr))

    def ask_rule(self, rule: Rule) -> Asked:
        """Like any expression; an alert that finds nothing is quiet if all it names is there."""
        question = Question("alerts" if rule.is_alert else "recordings", rule.name, rule.expr)
        if rule.health != "ok":
            return _asked(question, "failed", rule.error or f"its health is {rule.health}")
        asked = self.ask(question)
        if not rule.is_alert or asked.outcome != "failed":
            return asked
        names = _NAME.findall(_STRING.sub("", rule.expr))
        if missing := [name for name in names if not self.num_series(name)]:
            return _asked(question, "failed", f"no {', '.join(missing)}")
        return _asked(question, "quiet")

    def alerts(self) -> list[Alert]:
        """Those that were about to fire, or fired; by when `for` has passed it is the latter."""
        states = {rule.name: rule.state for rule in self.prometheus.rules() if rule.is_alert}
        seconds: dict[str, Counter[str]] = {name: Counter() for name in states}
        for series in self.prometheus.over("ALERTS", self.start, self.end, _STEP_S):
            name, state = series.labels["alertname"], series.labels["alertstate"]
            seconds[name][state] = max(seconds[name][state], len(series.times) * round(_STEP_S))
        return [
            Alert(name, seconds[name]["pending"], seconds[name]["firing"], states[name])
            for name in sorted(states)
            if seconds[name]
        ]

    def targets(self) -> list[Target]:
        window = f"[{round(self.end - self.start)}s]"
        found = self.prometheus.at(f"avg_over_time(scrape_duration_seconds{window})", self.end)
        return [self._target(series.labels, series.values[0], window) for series in found]

    def _target(self, labels: Mapping[str, str], mean_s: float, window: str) -> Target:
        chosen = f'{{instance="{labels["instance"]}"}}{window}'
        longest = f"max_over_time(scrape_duration_seconds{chosen})"
        series = f"max_over_time(scrape_samples_post_metric_relabeling{chosen})"
        return Target(
            name=labels.get("worker", "service"),
            mean_ms=round(1e3 * mean_s, 2),
            max_ms=round(1e3 * self.prometheus.value(longest, self.end), 2),
            num_series=round(self.prometheus.value(series, self.end)),
        )


def _asked(question: Question, outcome: Outcome, reason: str = "", num_series: int = 0) -> Asked:
    return Asked(question.board, question.title, question.expr, outcome, reason, num_series)
