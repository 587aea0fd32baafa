"""The promises: how fast what may go wrong is used up, and what is left of it."""

from typing import Final

from grafana_foundation_sdk.builders import timeseries

from dashboards.board import Board, Row
from dashboards.panels import RATIO, Query, above, below, lines, number, with_limit

_OF: Final = 'task=~"($task)?"'  # `requests` has no task
_LEGEND: Final = "{{slo}} {{task}}"
_ONE_IS: Final = "1 uses up the budget in just 30 days."


def board() -> Board:
    return Board(
        "slo",
        "SLO",
        "Requests 99.5 % without a 5xx; jobs 99.5 % done; images 95 % within 10 s, classify and "
        "embeddings 99 % within 0.25 s; 95 % begun within 30 s. Over 30 days, without what clients "
        "cancel or get wrong.",
        (_budget(), _fast(), _slow()),
        since="now-7d",
    )


def _budget() -> Row:
    return Row(
        "What is left of 30 days",
        (
            number(
                "Least budget left",
                "more than half.",
                "put off risky changes; at 0 work on what burns before anything else.",
                Query(f"min(triptych:slo_budget_left:ratio_rate30d{{{_OF}}})"),
            )
            .unit(RATIO)
            .decimals(1)
            .thresholds(below(0.5, 0))
            .no_value("no traffic")
            .height(8)
            .span(6),
            lines(
                "What is left of each error budget?",
                "a slow fall, or level; it comes back as bad days get older than 30.",
                "a cliff is an outage: the alerts of that hour say which. Below 0 the promise is "
                "broken.",
                Query(f"triptych:slo_budget_left:ratio_rate30d{{{_OF}}}", _LEGEND),
            )
            .unit(RATIO)
            .max(1)
            .span(18),
        ),
    )


def _fast() -> Row:
    return Row(
        "Does it burn now?",
        (
            _burn("5m", 14.4, "above 14.4 (dashed) with the hour's, it wakes somebody."),
            _burn("1h", 14.4, "above 14.4 (dashed) for an hour, 2 % of the budget is gone."),
            number(
                "Fastest burn of this hour",
                f"below 1. {_ONE_IS}",
                "runbook: TriptychErrorBudgetBurnsFast.",
                Query(f"max(triptych:slo_burn:ratio_rate1h{{{_OF}}})"),
            )
            .decimals(1)
            .thresholds(above(1, 14.4))
            .no_value("no traffic")
            .height(8)
            .span(8),
        ),
    )


def _slow() -> Row:
    return Row(
        "Does it smoulder?",
        (
            _burn("30m", 6, "above 6 (dashed) with the 6 hours', it wakes somebody."),
            _burn("6h", 6, "above 6 (dashed) for 6 hours, 5 % of the budget is gone."),
            _burn("2h", 3, "above 3 (dashed) with the day's: TriptychErrorBudgetBurnsSlowly."),
            _burn("1d", 3, "above 3 (dashed) for a day, 10 % of the budget is gone.").span(12),
            _burn("3d", 1, "above 1 (dashed) for 3 days, the budget will not last.").span(12),
        ),
    )


def _burn(window: str, limit: float, otherwise: str) -> timeseries.Panel:
    return with_limit(
        lines(
            f"How fast, over {window}?",
            f"below 1. {_ONE_IS}",
            otherwise,
            Query(f"triptych:slo_burn:ratio_rate{window}{{{_OF}}}", _LEGEND),
        ),
        limit,
    )
