"""Where jobs and images lie: Redis and the disk."""

from dashboards.board import Board, Row
from dashboards.panels import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    OF_INSTANCE,
    PER_SECOND,
    SECONDS,
    Query,
    above,
    below,
    lines,
    number,
    quantile,
    rate,
    stacked,
    words,
)


def board() -> Board:
    return Board(
        "storage",
        "storage and Redis",
        "Redis carries every job, the disk every image: when one is full, nothing goes in.",
        (_redis(), _redis_memory(), _disk()),
    )


def _redis() -> Row:
    return Row(
        "Is Redis well?",
        (
            number(
                "Does it answer?",
                "yes.",
                "runbook: TriptychRedisDown.",
                Query("max(triptych_redis_up)"),
            )
            .mappings(words("no", "yes"))
            .thresholds(below(1))
            .span(6),
            number(
                "Does it take writes?",
                "yes.",
                "runbook: TriptychRedisRefusesWrites.",
                Query("max(triptych_redis_writable) or vector(0)"),
            )
            .mappings(words("no", "yes"))
            .thresholds(below(1))
            .span(6),
            number(
                "Is its file written?",
                "yes; off means that a restart of Redis loses all jobs.",
                "runbook: TriptychRedisLogFails.",
                Query("min(triptych_redis_aof_write_ok)"),
            )
            .mappings(words("no", "yes"))
            .thresholds(below(1))
            .no_value("off")
            .span(6),
            number(
                "Keys that it threw away",
                "0, always: maxmemory-policy is noeviction.",
                "jobs are lost; runbook: TriptychRedisEvictsKeys.",
                Query("max(increase(triptych_redis_evicted_keys_total[$__range]))"),
            )
            .decimals(0)
            .thresholds(above(1))
            .span(6),
        ),
    )


def _redis_memory() -> Row:
    return Row(
        "What does Redis hold?",
        (
            lines(
                "How full is it?",
                "level, far below its limit; no limit, no line.",
                "80 % is an alert; runbook: TriptychRedisMemoryHigh.",
                Query("max(triptych_redis_memory_used_bytes)", "used"),
                Query("max(triptych_redis_memory_max_bytes)", "limit"),
            ).unit(BYTES),
            lines(
                "How much are kept results?",
                "level at the cache's limit, or below.",
                "they make room by themselves: what else grows is jobs and their events.",
                Query("max(triptych_result_cache_bytes)", "kept results"),
            ).unit(BYTES),
            lines(
                "How many clients has it?",
                "some for each API process and worker.",
                "a line that only climbs: connections leak, or other programs use it too.",
                Query("max(triptych_redis_connected_clients)", "clients"),
            ).unit(COUNT),
        ),
    )


def _disk() -> Row:
    operations = "triptych_result_store_operation_duration_seconds"
    return Row(
        "Images on the disk",
        (
            lines(
                "How much room is left?",
                "more than a day's images; used is level, as old images expire.",
                "15 %, or a gigabyte, left is an alert; runbook: TriptychDiskFills.",
                Query("max(triptych_result_store_used_bytes)", "used by images"),
                Query("min(triptych_result_store_free_bytes)", "free"),
            ).unit(BYTES),
            lines(
                "How much is written?",
                "it follows the images that are made.",
                "more than the disk writes: images wait for it, see below.",
                Query(rate("triptych_result_store_bytes_total", OF_INSTANCE), "written"),
            ).unit(BYTES_PER_SECOND),
            lines(
                "How many images expire?",
                "as many as were made a lifetime ago.",
                "none for hours: see the API's log for its clean-up.",
                Query(rate("triptych_results_expired_total", OF_INSTANCE), "expired"),
            ).unit(PER_SECOND),
            lines(
                "How long does the disk take?",
                "milliseconds.",
                "a slow or distant disk: jobs hold their place in the pipeline meanwhile.",
                Query(quantile(0.5, operations, OF_INSTANCE, "op"), "{{op}} p50"),
                Query(quantile(0.99, operations, OF_INSTANCE, "op"), "{{op}} p99"),
            )
            .unit(SECONDS)
            .span(12),
            stacked(
                "What fails there?",
                "nothing.",
                "runbook: TriptychStorageErrors.",
                Query(rate("triptych_result_store_errors_total", OF_INSTANCE, "op"), "{{op}}"),
            )
            .unit(PER_SECOND)
            .span(12),
        ),
    )
