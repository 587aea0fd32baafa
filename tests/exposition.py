"""Read what a process exposes: by the library's strict parsers, in both formats."""

import re

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

# Base units, and what is counted or has none.
_UNITS = ("seconds", "bytes", "ratio", "joules", "watts", "celsius", "size")
_NO_UNIT = re.compile(
    r"_(info|up|writable|ok|resident|depth|workers|jobs|tasks|clients|connections|in_flight|"
    r"in_state)$"
)


def samples_of(text: str) -> dict[str, float]:
    """Each sample by its name and labels, as `name{a=b}`."""
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples_in(registry: CollectorRegistry) -> dict[str, float]:
    return samples_of(generate_latest(registry).decode())


def openmetrics_of(registry: CollectorRegistry) -> str:
    text: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    return text.decode()


def openmetrics_families(text: str) -> list[Metric]:
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def exemplars_in(text: str) -> dict[str, str]:
    """The trace by the histogram's series that has an example of it, in OpenMetrics."""
    return {
        sample.name: sample.exemplar.labels["trace_id"]
        for family in openmetrics_families(text)
        for sample in family.samples
        if sample.exemplar is not None
    }


def num_series(registry: CollectorRegistry) -> int:
    text = generate_latest(registry).decode()
    return sum(not line.startswith("#") for line in text.splitlines())


def assert_keeps_the_rules(registry: CollectorRegistry) -> None:
    """Prometheus' naming rules, and that both formats are read by strict parsers."""
    plain = list(text_string_to_metric_families(generate_latest(registry).decode()))
    strict = openmetrics_families(openmetrics_of(registry))
    assert {family.name for family in plain} == {family.name for family in strict}
    for family in strict:
        if not family.name.startswith("process_"):
            _check(family)


def _check(family: Metric) -> None:
    name = family.name  # of a counter without `_total`, which the parser has asked for
    assert name.startswith("triptych_"), name
    assert family.documentation, name
    assert family.type in ("counter", "gauge", "histogram", "summary"), name
    if family.type == "gauge":
        assert not name.endswith(("_total", "_count", "_sum", "_bucket")), name
    if family.type != "counter":
        assert name.endswith(_UNITS) or _NO_UNIT.search(name), f"{name} has no base unit"
    assert not re.search(r"_(ms|milliseconds|minutes|mb|kb|percent)(_|$)", name), name
