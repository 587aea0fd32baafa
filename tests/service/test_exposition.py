"""The text of a scrape against prometheus_client's own encoders, and that what is kept is right."""

from collections.abc import Iterator

import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from service.exposition import expose
from service.metrics import Metrics
from tests.service.test_metrics import OPENMETRICS

ODD = 'a "quoted" \\ name\nand ü'


class _AtScrape(Collector):
    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("triptych_depth", f"Of {ODD}.", value=1e21)
        family = CounterMetricFamily("triptych_told", "Told.", labels=["z", "a"])
        family.add_metric(["1", ODD], float("inf"))
        family.add_metric(["2", ""], float("nan"))
        yield family


@pytest.fixture
def registry() -> CollectorRegistry:
    """Every kind of family that we have, with numbers and labels that need care."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as `Metrics` does
    registry = CollectorRegistry()
    Counter("triptych_events", "Events.", registry=registry).inc(1_234_567)
    Gauge("triptych_ratio", ODD, ("model",), registry=registry).labels(ODD).set(-0.25)
    seconds = Histogram(
        "triptych_seconds", "Taken.", ("route",), buckets=(0.1, 1), registry=registry
    )
    seconds.labels("/v1").observe(0.5, {"trace_id": "ab" * 16})
    seconds.labels("/v2").observe(50)
    registry.register(_AtScrape())
    return registry


def test_the_text_is_that_of_the_library(registry: CollectorRegistry) -> None:
    told = expose(registry, "*/*")
    assert told.text == generate_latest(registry)
    assert told.media_type == "text/plain; version=0.0.4; charset=utf-8"


def test_openmetrics_is_that_of_the_library(registry: CollectorRegistry) -> None:
    told = expose(registry, OPENMETRICS["accept"])
    assert told.text == generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    assert told.media_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"


def test_a_number_that_changed_is_new_in_the_next_text() -> None:
    registry = CollectorRegistry()
    events = Counter("triptych_events", "Events.", registry=registry)
    assert b"triptych_events_total 0.0\n" in expose(registry, "").text
    events.inc()
    assert b"triptych_events_total 1.0\n" in expose(registry, "").text


def test_what_the_api_counts_reads_as_the_library_writes_it() -> None:
    metrics = Metrics()
    metrics.requests.observe("/v1/classify", "POST", 200, 0.1, 100)
    ours = expose(metrics.registry, "").text.splitlines()
    theirs = generate_latest(metrics.registry).splitlines()
    assert [line.split()[:-1] for line in ours] == [line.split()[:-1] for line in theirs]
