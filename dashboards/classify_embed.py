"""Classifications and embeddings: how many, how fast, how well they are batched."""

from typing import Final

from dashboards.board import Board, Row
from dashboards.panels import (
    COUNT,
    OF_MODEL,
    OF_TASK,
    OF_TASK_AND_MODEL,
    PER_SECOND,
    RATIO,
    SECONDS,
    Query,
    density,
    lines,
    mean,
    quantile,
    rate,
    stacked,
    with_limit,
)

_NO_IMAGES: Final = f'task!="images",{OF_TASK}'


def board() -> Board:
    return Board(
        "classify-embed",
        "classify and embed",
        "The two tasks of milliseconds, whose jobs gather to batches while the device is busy.",
        (_throughput(), _latency(), _batches()),
    )


def _throughput() -> Row:
    return Row(
        "How much is done?",
        (
            lines(
                "How many images are classified?",
                "as many as are asked for.",
                "fewer while jobs wait: see Batches below, and GPU.",
                Query(rate("triptych_classified_images_total", OF_MODEL, "model"), "{{model}}"),
            )
            .unit(PER_SECOND)
            .span(12),
            lines(
                "How many tokens are embedded?",
                "as many as are asked for.",
                "fewer while jobs wait: see Batches below, and GPU.",
                Query(rate("triptych_embedding_tokens_total", OF_MODEL, "model"), "{{model}}"),
            )
            .unit(PER_SECOND)
            .span(12),
        ),
    )


def _latency() -> Row:
    e2e = "triptych_job_e2e_duration_seconds"
    labels = f'task!="images",{OF_TASK_AND_MODEL}'
    return Row(
        "How long does it take?",
        (
            with_limit(
                lines(
                    "From request to result",
                    "p99 is below 0.25 s (dashed).",
                    "compare with the next two: the queue, or the work?",
                    Query(quantile(0.5, e2e, labels, "task"), "{{task}} p50"),
                    Query(quantile(0.95, e2e, labels, "task"), "{{task}} p95"),
                    Query(quantile(0.99, e2e, labels, "task"), "{{task}} p99"),
                ),
                0.25,
            ).unit(SECONDS),
            stacked(
                "What takes a job's time?",
                "forward; preprocess is the decoding of images.",
                "preprocess or tokenize on top: the CPU is short, or inputs are large.",
                Query(
                    mean(
                        "triptych_stage_duration_seconds",
                        f'stage=~"preprocess|tokenize|forward",{OF_MODEL}',
                        *("model", "stage"),
                    ),
                    "{{model}} {{stage}}",
                ),
            ).unit(SECONDS),
            density(
                "How is the time spread?",
                "one narrow band for each task.",
                "a second band above: some wait for a batch, a large input or another process.",
                e2e,
                labels,
            ).unit(SECONDS),
        ),
    )


def _batches() -> Row:
    return Row(
        "Batches",
        (
            lines(
                "How many share a forward?",
                "1 when idle, more under load: no timer waits for a batch.",
                "1 while jobs wait: their shapes differ too much.",
                Query(mean("triptych_batch_size", _NO_IMAGES, "task"), "{{task}}"),
            ).unit(COUNT),
            lines(
                "How long do prepared jobs wait for their forward?",
                "at most the length of one forward.",
                "longer: the device is the bottleneck; see GPU.",
                Query(
                    quantile(0.95, "triptych_batch_wait_seconds", _NO_IMAGES, "task"),
                    "{{task}} p95",
                ),
            ).unit(SECONDS),
            lines(
                "How much of a batch is padding?",
                "little: nothing is padded to fit its neighbours.",
                "much: texts are far shorter than the padded length that the model asks for.",
                Query(mean("triptych_batch_padding_ratio", _NO_IMAGES, "task"), "{{task}}"),
            )
            .unit(RATIO)
            .max(1),
        ),
    )
