"""Queues and workers: what comes in, what is done, who does it, and how long until all is done."""

from dashboards.board import Board, Row, more
from dashboards.panels import (
    COUNT,
    OF_TASK,
    OF_TASK_AND_MODEL,
    PER_SECOND,
    SECONDS,
    Query,
    lines,
    quantile,
    rate,
    stacked,
    with_limit,
)


def board() -> Board:
    return Board(
        "queues",
        "queues and workers",
        "Between the API and the devices: jobs that wait, and the workers that take them.",
        (_flow(), _waiting(), _workers()),
    )


def _flow() -> Row:
    return Row(
        "What comes in, what is done",
        (
            lines(
                "Is as much done as comes in?",
                "each pair of lines lies together.",
                "in above done: the queue grows; done at 0: TriptychQueueStuck.",
                Query(rate("triptych_jobs_enqueued_total", OF_TASK, "task"), "{{task}} in"),
                Query(rate("triptych_jobs_finished_total", OF_TASK, "task"), "{{task}} done"),
            ).unit(PER_SECOND),
            stacked(
                "How do jobs end?",
                "succeeded; canceled ones are the clients' wish.",
                "failed: the reasons are on the overview; expired: they waited too long.",
                Query(
                    rate("triptych_jobs_finished_total", OF_TASK_AND_MODEL, "outcome"),
                    "{{outcome}}",
                ),
                Query(
                    "sum(max by (task) (rate(triptych_queue_expired_jobs_total"
                    '{task=~"$task"}[$__rate_interval])))',
                    "expired while they waited",
                ),
            ).unit(PER_SECOND),
            lines(
                "How long until the queue is empty?",
                "seconds.",
                "as long as new requests wait too, if nothing changes: minutes want more workers.",
                Query(
                    'max by (task) (triptych_queue_depth{task=~"$task"})'
                    f" / ({rate('triptych_jobs_finished_total', OF_TASK, 'task')} > 0)",
                    "{{task}}",
                ),
            ).unit(SECONDS),
        ),
    )


def _waiting() -> Row:
    wait = "triptych_job_queue_wait_seconds"
    return Row(
        "Who waits?",
        (
            stacked(
                "How many jobs wait, how many run?",
                "few wait.",
                "see whether the workers below are there, and what they do.",
                Query(
                    'max by (task, state) (triptych_jobs_in_state{task=~"$task"})',
                    "{{task}} {{state}}",
                ),
            ).unit(COUNT),
            with_limit(
                lines(
                    "How long did those wait that were begun?",
                    "p95 is below 30 s (dashed).",
                    "only what was begun counts here: for those that still wait see the next one.",
                    Query(quantile(0.5, wait, OF_TASK, "task"), "{{task}} p50"),
                    Query(quantile(0.95, wait, OF_TASK, "task"), "{{task}} p95"),
                ),
                30,
            ).unit(SECONDS),
            with_limit(
                lines(
                    "How old is the oldest job that waits?",
                    "seconds.",
                    "a straight line upwards: nothing is taken; runbook: TriptychQueueStuck.",
                    Query(
                        'max by (task) (triptych_queue_oldest_job_age_seconds{task=~"$task"})',
                        "{{task}}",
                    ),
                ),
                60,
            ).unit(SECONDS),
        ),
    )


def _workers() -> Row:
    return Row(
        "Who works?",
        (
            stacked(
                "How many workers are there, and what do they do?",
                "idle and busy, as many as there should be.",
                "loading for minutes: see Models; fewer: the log of the one that is gone.",
                Query(
                    'max by (task, state) (triptych_workers{task=~"$task"})', "{{task}} {{state}}"
                ),
            )
            .unit(COUNT)
            .links(more("models", "Models")),
            with_limit(
                lines(
                    "How long ago did each worker say that it lives?",
                    "below 9 s: three signs of life.",
                    "a line that climbs and ends at 15 s is a worker that died or hangs; its jobs "
                    "are given to others.",
                    Query(
                        "time() - max by (worker) (triptych_worker_heartbeat_timestamp_seconds)",
                        "{{worker}}",
                    ),
                ),
                9,
            ).unit(SECONDS),
            lines(
                "Which jobs were begun again, which workers?",
                "none.",
                "a job that kills every worker is quarantined: TriptychJobsQuarantined. Restarts "
                "without one: TriptychWorkerRestarts.",
                Query(
                    "sum by (task, reason) (increase("
                    f"triptych_job_retries_total{{{OF_TASK}}}[$__rate_interval]))",
                    "{{task}} jobs: {{reason}}",
                ),
                Query(
                    "changes(process_start_time_seconds{"
                    'job="triptych-worker",instance=~"$instance"}[$__rate_interval])',
                    "{{instance}} restarts",
                ),
                Query("max(triptych_quarantined_jobs)", "quarantined"),
            ).unit(COUNT),
        ),
    )
