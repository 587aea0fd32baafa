"""The first look at night: is it up, is it slow, why, what fails, is another GPU needed?"""

from typing import Final

from dashboards.board import Board, Row, more
from dashboards.panels import (
    BYTES,
    COUNT,
    OF_CLIENTS,
    OF_INSTANCE,
    OF_TASK,
    OF_TASK_AND_MODEL,
    PER_SECOND,
    RATIO,
    REQUESTS_PER_SECOND,
    SECONDS,
    Query,
    above,
    below,
    lines,
    listing,
    number,
    quantile,
    rate,
    rate_of_seen,
    stacked,
    with_limit,
    words,
)

_E2E: Final = "triptych_job_e2e_duration_seconds"
_GOOD_OR_BAD: Final = rate("triptych_http_requests_total", f'{OF_CLIENTS},status!~"4.."')
_BAD: Final = rate("triptych_http_requests_total", f'{OF_CLIENTS},status=~"5.."')
_WARM: Final = 'max by (task, state) (triptych_workers{state=~"idle|busy",task=~"$task"})'
_BUSY: Final = 'max by (task, state) (triptych_workers{state="busy",task=~"$task"})'


def board() -> Board:
    return Board(
        "overview",
        "overview",
        "Is it up, is it slow, why is it slow, what fails, is another GPU needed?",
        (_is_it_up(), _alerts(), _is_it_slow(), _why_is_it_slow(), _what_fails(), _more_gpus()),
    )


def _is_it_up() -> Row:
    return Row(
        "Is it up?",
        (
            number(
                "API processes that answer",
                "all that Prometheus knows.",
                "see the process or container of the API; runbook: TriptychServiceDown.",
                Query('avg(up{job="triptych-service"})'),
            )
            .unit(RATIO)
            .thresholds(below(1, 0.01))
            .no_value("no target"),
            number(
                "Does Redis take jobs?",
                "yes.",
                "no job goes in or out; runbook: TriptychRedisDown, TriptychRedisRefusesWrites.",
                Query("max(triptych_redis_up) * (max(triptych_redis_writable) or vector(0))"),
            )
            .mappings(words("no", "yes"))
            .thresholds(below(1))
            .links(more("storage", "Storage and Redis")),
            number(
                "Tasks that lost their workers",
                "none: each that had a worker in the last day has one that is idle or busy.",
                "such a task answers 503; runbook: TriptychNoWorker.",
                Query(
                    "count(triptych:warm_workers:sum == 0"
                    " and max_over_time(triptych:warm_workers:sum[1d]) > 0) or vector(0)"
                ),
            )
            .thresholds(above(1))
            .links(more("queues", "Queues and workers")),
            number(
                "Requests that go well",
                "99.5 % or more of those that are no mistake of the client's.",
                "What fails? below has routes and reasons.",
                Query(f"1 - ({_BAD} or 0 * {_GOOD_OR_BAD}) / ({_GOOD_OR_BAD} > 0)"),
            )
            .unit(RATIO)
            .decimals(2)
            .thresholds(below(0.995, 0.97))
            .no_value("no traffic")
            .links(more("api", "API")),
            number(
                "Least error budget left, 30 days",
                "more than half. It is the smallest of all objectives.",
                "below 0 a promise is broken; SLO has which one. Put off risky changes.",
                Query("min(triptych:slo_budget_left:ratio_rate30d)"),
            )
            .unit(RATIO)
            .decimals(1)
            .thresholds(below(0.5, 0))
            .no_value("no traffic")
            .links(more("slo", "SLO")),
            number(
                "Alerts that fire",
                "none.",
                "they are listed below; each has a section in docs/runbook.md.",
                Query('count(ALERTS{alertname=~"Triptych.+",alertstate="firing"}) or vector(0)'),
            ).thresholds(above(1)),
        ),
    )


def _alerts() -> Row:
    return Row(
        "What wants somebody?",
        (
            listing(
                "Alerts, those that are about to fire too",
                "an empty list.",
                "begin with those of severity page; docs/runbook.md has a section for each name.",
                Query('ALERTS{alertname=~"Triptych.+"}'),
            )
            .height(5)
            .span(12)
            .no_value("none"),
            stacked(
                "How much is asked of it?",
                "the usual course of the day.",
                "nothing at all may be a broken way to the API; a jump explains what is slow.",
                Query(rate("triptych_jobs_enqueued_total", OF_TASK, "task"), "{{task}}"),
            )
            .unit(REQUESTS_PER_SECOND)
            .height(5)
            .span(12),
        ),
    )


def _is_it_slow() -> Row:
    images = 'task="images",model=~"$model"'
    others = 'task=~"$task",task!="images",model=~"$model"'
    return Row(
        "Is it slow?",
        (
            with_limit(
                lines(
                    "How long does an image take?",
                    "p95 is below 10 s (dashed).",
                    "if jobs wait (below) it is load, else Images has the stage that grew.",
                    Query(quantile(0.5, _E2E, images), "p50"),
                    Query(quantile(0.95, _E2E, images), "p95"),
                    Query(quantile(0.99, _E2E, images), "p99", has_exemplars=True),
                ),
                10,
            )
            .unit(SECONDS)
            .span(12)
            .links(more("images", "Images")),
            with_limit(
                lines(
                    "How long do classify and embed take?",
                    "p99 is below 0.25 s (dashed).",
                    "if jobs wait (below) it is load, else see Classify and embed.",
                    Query(quantile(0.5, _E2E, others, "task"), "{{task}} p50"),
                    Query(quantile(0.95, _E2E, others, "task"), "{{task}} p95"),
                    Query(quantile(0.99, _E2E, others, "task"), "{{task}} p99", has_exemplars=True),
                ),
                0.25,
            )
            .unit(SECONDS)
            .span(12)
            .links(more("classify-embed", "Classify and embed")),
        ),
    )


def _why_is_it_slow() -> Row:
    return Row(
        "Why is it slow?",
        (
            lines(
                "How many jobs wait?",
                "near 0; a peak goes down by itself.",
                "more comes in than is done; Queues and workers says since when, and how long "
                "until it is done.",
                Query('max by (task) (triptych_queue_depth{task=~"$task"})', "{{task}}"),
            )
            .unit(COUNT)
            .links(more("queues", "Queues and workers")),
            with_limit(
                lines(
                    "How old is the oldest job that waits?",
                    "seconds.",
                    "above 30 s (dashed) a promise is broken; a straight line upwards means that "
                    "nothing is taken: runbook, TriptychQueueStuck.",
                    Query(
                        'max by (task) (triptych_queue_oldest_job_age_seconds{task=~"$task"})',
                        "{{task}}",
                    ),
                ),
                30,
            ).unit(SECONDS),
            stacked(
                "What do the workers do?",
                "idle and busy, as many as there should be.",
                "loading: they have just started; fewer: some are lost (TriptychWorkerLost).",
                Query(
                    'sum by (state) (max by (task, state) (triptych_workers{task=~"$task"}))',
                    "{{state}}",
                ),
            ).unit(COUNT),
        ),
    )


def _what_fails() -> Row:
    return Row(
        "What fails?",
        (
            stacked(
                "Which requests end with a 5xx?",
                "none.",
                "503: no worker or no Redis; 500: look for the request id in the API's log.",
                Query(
                    rate_of_seen(
                        "triptych_http_requests_total",
                        f'{OF_CLIENTS},status=~"5.."',
                        *("route", "status"),
                    ),
                    "{{status}} {{route}}",
                ),
            )
            .unit(REQUESTS_PER_SECOND)
            .links(more("api", "API")),
            stacked(
                "Why do jobs fail?",
                "none, or invalid_image and input_too_long, which are mistakes of clients.",
                "the reason is the failure code that clients get; the worker's log has the cause.",
                Query(
                    rate_of_seen(
                        "triptych_job_failures_total", OF_TASK_AND_MODEL, "task", "reason"
                    ),
                    "{{task}} {{reason}}",
                ),
            ).unit(PER_SECOND),
            stacked(
                "Why are requests refused?",
                "none.",
                "queue_full: more workers are needed; disk_full, redis_*: Storage and Redis.",
                Query(
                    rate_of_seen(
                        "triptych_admission_rejections_total",
                        f'task=~"$task|unknown",{OF_INSTANCE}',
                        "task",
                        "reason",
                    ),
                    "{{task}} {{reason}}",
                ),
            ).unit(REQUESTS_PER_SECOND),
        ),
    )


def _more_gpus() -> Row:
    return Row(
        "Is another GPU needed?",
        (
            with_limit(
                lines(
                    "How much of the time are the workers busy?",
                    "below 80 % (dashed) over an hour.",
                    "more for hours, while jobs wait: add a worker, on a GPU of its own.",
                    Query(
                        f"avg_over_time((sum by (task) ({_BUSY}) / (sum by (task) ({_WARM}) > 0))"
                        "[15m:1m])",
                        "{{task}}",
                    ),
                ),
                0.8,
            )
            .unit(RATIO)
            .max(1),
            lines(
                "How busy are the GPUs?",
                "as busy as the workers; no line where there is no NVIDIA GPU.",
                "busy workers on idle GPUs wait for the CPU: see GPU.",
                Query("max by (gpu) (triptych_gpu_utilization_ratio)", "{{gpu}}"),
            )
            .unit(RATIO)
            .max(1)
            .links(more("gpu", "GPU")),
            lines(
                "How full is the memory of the GPUs?",
                "below the dashed total with room for a batch.",
                "models make room for one another: see Models for evictions.",
                Query("max by (gpu) (triptych_gpu_memory_used_bytes)", "{{gpu}} used"),
                Query("max by (gpu) (triptych_gpu_memory_total_bytes)", "{{gpu}} total"),
            )
            .unit(BYTES)
            .links(more("gpu", "GPU")),
        ),
    )
