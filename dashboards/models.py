"""The models: what is served, what is on the device when, and what loading it costs."""

from typing import Final

from dashboards.board import Board, Row
from dashboards.panels import (
    BYTES,
    COUNT,
    OF_INSTANCE,
    OF_MODEL,
    OF_TASK_AND_MODEL,
    PER_SECOND,
    SECONDS,
    Query,
    lines,
    listing,
    periods,
    rate,
    stacked,
    words,
)

_LOAD: Final = "triptych_model_load_duration_seconds"


def board() -> Board:
    return Board(
        "models",
        "models",
        "Which models are served, which are on the device, and what it costs to bring them there.",
        (_served(), _loading(), _use()),
    )


def _served() -> Row:
    return Row(
        "Served",
        (
            listing(
                "Which models are served?",
                "all that are configured, with the precision and device that you mean.",
                "one that is missing loads still, or cannot: see Loads below.",
                Query(
                    "max by (model, task, family, dtype, device) "
                    '(triptych_model_info{task=~"$task",model=~"$model"})'
                ),
            ).span(12),
            periods(
                "When was which model on the device?",
                "all the time, where memory holds them all.",
                "models that come and go push one another out, and their jobs wait for loads: give "
                "them memory or devices of their own.",
                Query(
                    f"max by (model, instance) (triptych_model_resident{{{OF_MODEL}}})",
                    "{{model}} {{instance}}",
                ),
            ).mappings(words("away", "resident")),
        ),
    )


def _loading() -> Row:
    return Row(
        "Loads",
        (
            stacked(
                "Which loads failed, which succeeded?",
                "some at a start, then none; no failed ones.",
                "failed: the worker's log and GET /v1/models say why; runbook: "
                "TriptychModelLoadFails.",
                Query(
                    "sum by (model, outcome) (increase("
                    f"triptych_model_loads_total{{{OF_MODEL}}}[$__rate_interval]))",
                    "{{model}} {{outcome}}",
                ),
            ).unit(COUNT),
            lines(
                "How long does a load take?",
                "seconds, and minutes for the largest; a download comes on top.",
                "a slow disk or hub. It is the mean since a worker's start: most loads are over "
                "before its first scrape.",
                Query(
                    f"max by (model) ({_LOAD}_sum{{{OF_MODEL}}} / {_LOAD}_count{{{OF_MODEL}}})",
                    "{{model}}",
                ),
            ).unit(SECONDS),
            stacked(
                "Which models made room?",
                "none.",
                "more models than memory holds: fewer models a worker, or a larger budget.",
                Query(
                    "sum by (model) (increase("
                    f"triptych_model_evictions_total{{{OF_MODEL}}}[$__rate_interval]))",
                    "{{model}}",
                ),
            ).unit(COUNT),
        ),
    )


def _use() -> Row:
    return Row(
        "Use",
        (
            stacked(
                "Which models are asked for?",
                "those that you serve.",
                "one that nobody asks for may go and leave its memory to others.",
                Query(
                    rate("triptych_jobs_finished_total", OF_TASK_AND_MODEL, "model"), "{{model}}"
                ),
            )
            .unit(PER_SECOND)
            .span(12),
            lines(
                "How much memory may models take?",
                "level; no line where there is no limit.",
                "it changed: a worker was started with another setting, or on another device.",
                Query(f"triptych_memory_budget_bytes{{{OF_INSTANCE}}}", "{{instance}}"),
            )
            .unit(BYTES)
            .span(12),
        ),
    )
