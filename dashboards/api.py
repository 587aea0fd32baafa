"""The API: who asks what, how it is answered, and whether its event loop keeps up."""

from typing import Final

from dashboards.board import Board, Row
from dashboards.panels import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    OF_CLIENTS,
    OF_INSTANCE,
    OF_TASK,
    REQUESTS_PER_SECOND,
    SECONDS,
    Query,
    density,
    lines,
    listing,
    quantile,
    rate,
    rate_of_seen,
    stacked,
    with_limit,
)

_REQUESTS: Final = "triptych_http_requests_total"


def board() -> Board:
    return Board(
        "api",
        "API",
        "What clients ask and how they are answered, before and beside the work itself.",
        (_requests(), _refusals(), _clients(), _process()),
    )


def _requests() -> Row:
    return Row(
        "Requests",
        (
            stacked(
                "What is asked?",
                "the usual course of the day.",
                "a route that jumps is a client gone wild, or a retry loop: see Retries below.",
                Query(rate(_REQUESTS, OF_CLIENTS, "route"), "{{route}}"),
            ).unit(REQUESTS_PER_SECOND),
            stacked(
                "How is it answered?",
                "200 and 202; a few 4xx are mistakes of clients.",
                "5xx is ours: the API's log has the request ids; 429 is a full queue.",
                Query(rate(_REQUESTS, OF_CLIENTS, "status"), "{{status}}"),
            ).unit(REQUESTS_PER_SECOND),
            density(
                "How long do answers take?",
                "a steady pattern: milliseconds for jobs and embeddings, seconds for images.",
                "a band that climbs is a queue, one that spreads a busy event loop (below).",
                "triptych_http_request_duration_seconds",
                OF_CLIENTS,
            ).unit(SECONDS),
            lines(
                "Which routes are slow?",
                "p95 of the routes that wait for images is seconds, of all others below 1 s.",
                "if a route that waits for nothing is slow too, it is the API itself or Redis.",
                Query(
                    quantile(0.95, "triptych_http_request_duration_seconds", OF_CLIENTS, "route"),
                    "{{route}}",
                ),
            )
            .unit(SECONDS)
            .span(12),
            lines(
                "How many requests are being answered?",
                "about requests a second × seconds an answer takes.",
                "a line that only climbs: answers do not end; see waits and disconnects below.",
                Query(
                    f"sum by (instance) (triptych_http_requests_in_flight{{{OF_INSTANCE}}})",
                    "{{instance}}",
                ),
            )
            .unit(COUNT)
            .span(12),
        ),
    )


def _refusals() -> Row:
    return Row(
        "Refused, given up",
        (
            stacked(
                "Why are requests refused?",
                "none.",
                "queue_full: more workers; no_workers, model_*: Models; the rest: Storage and "
                "Redis.",
                Query(
                    rate_of_seen(
                        "triptych_admission_rejections_total",
                        f'task=~"$task|unknown",{OF_INSTANCE}',
                        *("task", "reason"),
                    ),
                    "{{task}} {{reason}}",
                ),
            ).unit(REQUESTS_PER_SECOND),
            lines(
                "How many do not get an answer in time?",
                "none.",
                "waits end with a 504, by long queues; clients that leave have shorter timeouts "
                "than the work takes.",
                Query(
                    rate("triptych_sync_wait_timeouts_total", OF_TASK, "task"),
                    "{{task}} waited in vain",
                ),
                Query(
                    rate("triptych_client_disconnects_total", OF_TASK, "task"),
                    "{{task}} client left",
                ),
            ).unit(REQUESTS_PER_SECOND),
            stacked(
                "Who asks again?",
                "none.",
                "OpenAI's clients repeat after a 429, a 5xx or a timeout of theirs: look there.",
                Query(rate("triptych_client_retries_total", OF_INSTANCE, "route"), "{{route}}"),
            ).unit(REQUESTS_PER_SECOND),
        ),
    )


def _clients() -> Row:
    return Row(
        "Streams and repeats",
        (
            lines(
                "How many event streams are open?",
                "about one for each streaming client.",
                "a line that only climbs: clients, or a proxy, never close their streams.",
                Query(
                    f"sum by (endpoint) (triptych_sse_connections{{{OF_INSTANCE}}})",
                    "{{endpoint}}",
                ),
            ).unit(COUNT),
            stacked(
                "What became of repeated Idempotency-Keys?",
                "few: replayed has its answer at once, attached waits for the first's.",
                "mismatch is a client that uses one key for two bodies; it gets a 422.",
                Query(
                    rate("triptych_idempotent_replays_total", OF_INSTANCE, "outcome"),
                    "{{outcome}}",
                ),
            ).unit(REQUESTS_PER_SECOND),
            stacked(
                "Which answers were there already?",
                "hits and shared runs where clients ask the same; they cost no device time.",
                "only misses where you expect hits: seeds or models differ, or the cache is full.",
                Query(
                    rate("triptych_result_cache_requests_total", OF_TASK, "result"), "{{result}}"
                ),
            ).unit(REQUESTS_PER_SECOND),
        ),
    )


def _process() -> Row:
    lag = "triptych_event_loop_lag_seconds"
    return Row(
        "The process",
        (
            with_limit(
                lines(
                    "Does the event loop keep up?",
                    "p99 of a few milliseconds.",
                    "above 0.25 s (dashed) all wait for all: add API processes; runbook: "
                    "TriptychEventLoopLags.",
                    Query(quantile(0.5, lag, OF_INSTANCE, "instance"), "{{instance}} p50"),
                    Query(quantile(0.99, lag, OF_INSTANCE, "instance"), "{{instance}} p99"),
                ),
                0.25,
            ).unit(SECONDS),
            lines(
                "How many tasks has it?",
                "some for each request that is being answered, and a dozen of its own.",
                "a line that only climbs, beside level requests, is a leak: report it.",
                Query(
                    f"sum by (instance) (triptych_event_loop_tasks{{{OF_INSTANCE}}})",
                    "{{instance}}",
                ),
            ).unit(COUNT),
            lines(
                "What does it take of its host?",
                "level memory; no lines where several API processes share one port.",
                "memory that only climbs is a leak: restart, and report it.",
                Query(
                    f'process_resident_memory_bytes{{job="triptych-service",{OF_INSTANCE}}}',
                    "{{instance}}",
                ),
            ).unit(BYTES),
            lines(
                "How much does it send?",
                "as the number of images.",
                "a jump without requests: large images as base64; ask for url instead.",
                Query(rate("triptych_http_response_bytes_total", OF_CLIENTS, "route"), "{{route}}"),
            )
            .unit(BYTES_PER_SECOND)
            .span(16),
            listing(
                "Which version runs?",
                "one, but while a new one is rolled out.",
                "two for long: the roll-out stopped half-way.",
                Query(f"count by (version, instance) (triptych_build_info{{{OF_INSTANCE}}})"),
            ),
        ),
    )
