"""The image pipeline: how much it paints, where the time goes, what its caches save."""

from typing import Final

from dashboards.board import Board, Row
from dashboards.panels import (
    BYTES,
    COUNT,
    OF_INSTANCE,
    OF_MODEL,
    PER_SECOND,
    PIXELS_PER_SECOND,
    RATIO,
    SECONDS,
    Query,
    density,
    lines,
    mean,
    on_the_right,
    quantile,
    rate,
    stacked,
    with_limit,
)

_STAGES: Final = "text_encode|start_decode|denoise|vae_decode|image_encode|store"
_STEP: Final = "triptych_denoise_step_duration_seconds"
_IMAGES: Final = f'task="images",{OF_INSTANCE}'


def board() -> Board:
    return Board(
        "images",
        "images",
        "Text to image: throughput, the stages of a job, steps and batches, cancels.",
        (_throughput(), _time(), _steps()),
    )


def _throughput() -> Row:
    return Row(
        "How much is painted?",
        (
            lines(
                "How many images are made?",
                "as many as are asked for.",
                "fewer while jobs wait: the next panels say whether images grew or steps slowed.",
                Query(rate("triptych_images_generated_total", OF_MODEL, "model"), "{{model}}"),
            ).unit(PER_SECOND),
            lines(
                "How many pixels?",
                "it follows the images; the number that compares sizes fairly.",
                "level while images fall: clients ask for larger ones.",
                Query(rate("triptych_image_pixels_total", OF_MODEL, "model"), "{{model}}"),
            ).unit(PIXELS_PER_SECOND),
            lines(
                "How many denoising steps?",
                "at the limit of the device while jobs wait.",
                "fewer than usual at full load: a slow device, see GPU.",
                Query(rate("triptych_denoise_steps_total", OF_MODEL, "model"), "{{model}}"),
            ).unit(PER_SECOND),
        ),
    )


def _time() -> Row:
    run = "triptych_job_run_duration_seconds"
    labels = f'task="images",{OF_MODEL}'
    stages = f'stage=~"{_STAGES}",{OF_MODEL}'
    return Row(
        "Where does the time go?",
        (
            stacked(
                "What takes a job's time?",
                "denoise, by far.",
                "text_encode: the text cache misses; vae_decode: large images; store: the disk.",
                Query(mean("triptych_stage_duration_seconds", stages, "stage"), "{{stage}}"),
            ).unit(SECONDS),
            with_limit(
                lines(
                    "How long from start to end, without the queue?",
                    "level for the same sizes and steps; p95 below 10 s (dashed).",
                    "a climb at level step times: larger batches, images or step counts.",
                    Query(quantile(0.5, run, labels), "p50"),
                    Query(quantile(0.95, run, labels), "p95"),
                    Query(quantile(0.99, run, labels), "p99"),
                ),
                10,
            ).unit(SECONDS),
            lines(
                "How long does a cancel take?",
                "p95 of one step, below 5 s.",
                "until then the canceled job holds its device; steps are too long.",
                Query(quantile(0.95, "triptych_cancel_latency_seconds", _IMAGES), "p95"),
                Query(
                    rate("triptych_jobs_finished_total", f'outcome="canceled",{labels}'),
                    "cancels a second",
                ),
            )
            .unit(SECONDS)
            .override_by_name("cancels a second", on_the_right(PER_SECOND)),
        ),
    )


def _steps() -> Row:
    texts = "triptych_prompt_cache_requests_total"
    hits = f'result="hit",{OF_MODEL}'
    return Row(
        "Steps, batches, text cache",
        (
            density(
                "How long does a step take?",
                "one band for each resolution and batch size.",
                "a band that climbs: a hot or shared GPU; see GPU.",
                _STEP,
                OF_INSTANCE,
            ).unit(SECONDS),
            lines(
                "Does a resolution get slower?",
                "level lines; more rows in a step make it longer.",
                "1.5 × the usual median is an alert: runbook, TriptychStepsSlow.",
                Query(quantile(0.99, _STEP, OF_INSTANCE, "pixels_bucket"), "{{pixels_bucket}} p99"),
                Query(quantile(0.5, _STEP, OF_INSTANCE, "pixels_bucket"), "{{pixels_bucket}} p50"),
            ).unit(SECONDS),
            lines(
                "How many images share a step?",
                "1 when idle, more under load.",
                "1 while jobs wait: sizes differ too much, or memory holds no more.",
                Query(mean("triptych_batch_size", _IMAGES), "rows a step"),
            ).unit(COUNT),
            lines(
                "How often was a prompt's text known already?",
                "high where prompts repeat, 0 where each is new.",
                "a fall while evictions climb: give the cache more memory.",
                Query(
                    f"{rate(texts, hits, 'model')} / ({rate(texts, OF_MODEL, 'model')} > 0)",
                    "{{model}}",
                ),
            )
            .unit(RATIO)
            .max(1)
            .span(12),
            lines(
                "How much do the kept texts take?",
                "level at its limit, or below.",
                "evictions all the time: more prompts repeat than fit.",
                Query(f"sum(triptych_prompt_cache_bytes{{{OF_INSTANCE}}})", "bytes"),
                Query(rate("triptych_prompt_cache_evictions_total", OF_INSTANCE), "evictions/s"),
            )
            .unit(BYTES)
            .override_by_name("evictions/s", on_the_right(PER_SECOND))
            .span(12),
        ),
    )
