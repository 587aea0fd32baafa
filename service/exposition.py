"""The text of a scrape, in Prometheus' format or in OpenMetrics, for names that are plain ASCII.

Names and labels never change, and a series' line but for its number is kept: prometheus_client's
own encoders, which look at each again, took half of a scrape.
https://prometheus.io/docs/instrumenting/exposition_formats
https://prometheus.io/docs/specs/om/open_metrics_spec
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from prometheus_client.core import Exemplar
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_1_0
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_MOST_KEPT: Final = 8192  # series of all processes of a large service; each takes 300 bytes

_number: Final[Callable[[float], str]] = lru_cache(_MOST_KEPT)(floatToGoString)  # most are zeros

_Labels: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Exposition:
    text: bytes
    media_type: str


def expose(registry: Collector, accept: str) -> Exposition:
    """All that the registry collects, in the format that this `Accept` wants."""
    _, chosen = choose_encoder(accept)
    is_openmetrics = chosen.startswith("application/openmetrics-text")
    text = "".join(_lines(registry, is_openmetrics))
    return Exposition(
        text.encode(), OPENMETRICS_1_0 if is_openmetrics else CONTENT_TYPE_PLAIN_0_0_4
    )


def _lines(registry: Collector, is_openmetrics: bool) -> Iterator[str]:
    for family in registry.collect():
        yield _head(family.name, family.type, family.documentation, is_openmetrics)
        for sample in family.samples:
            series = _series(sample.name, tuple(sample.labels.items()))
            example = _example(sample.exemplar) if is_openmetrics and sample.exemplar else ""
            yield f"{series} {_number(sample.value)}{example}\n"
    if is_openmetrics:
        yield "# EOF\n"


@lru_cache(_MOST_KEPT)
def _head(name: str, kind: str, documentation: str, is_openmetrics: bool) -> str:
    if kind == "counter" and not is_openmetrics:
        name = f"{name}_total"  # for Prometheus' own format the ending is part of the name
    text = documentation.replace("\\", r"\\").replace("\n", r"\n")
    if is_openmetrics:
        text = text.replace('"', r"\"")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


@lru_cache(_MOST_KEPT)
def _series(name: str, labels: _Labels) -> str:
    return f"{name}{_braced(labels)}" if labels else name


def _example(exemplar: Exemplar) -> str:
    labels = _braced(tuple(exemplar.labels.items()))
    return f" # {labels} {_number(exemplar.value)} {exemplar.timestamp}"


def _braced(labels: _Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
