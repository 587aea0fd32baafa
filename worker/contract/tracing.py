"""Spans of requests and jobs: sent to an OpenTelemetry collector where the environment names one.

OpenTelemetry's own variables say all there is to say (docs/tracing.md). Without an endpoint none of
what sends spans is imported, and a trace that a client began is passed on as it came.
"""

import logging
from collections.abc import Mapping
from typing import Final, Protocol

from worker.contract.spans import Span
from worker.contract.trace_context import TraceContext

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OUR_PROTOCOL = "http/protobuf"
EXPORTING = "worker.contract.otlp"  # the module that imports OpenTelemetry

logger = logging.getLogger(__name__)


class Tracing(Protocol):
    @property
    def is_on(self) -> bool:
        """Whether anything is recorded."""

    def begin(self, name: str, given: TraceContext | None) -> TraceContext | None:
        """The context of a request's span; None: there is no trace.

        One that is not sampled is not ours to record, but to pass on.
        """

    def record(self, span: Span) -> None:
        """Send it, some time; only those whose trace is sampled are to come here."""

    def close(self) -> None:
        """Send what is left, if that does not take long."""


class NoTracing:
    """Records nothing, and leaves a client's trace as it is."""

    is_on = False

    def begin(self, name: str, given: TraceContext | None) -> TraceContext | None:  # noqa: ARG002
        return given

    def record(self, span: Span) -> None:
        pass

    def close(self) -> None:
        pass


NO_TRACING: Final[Tracing] = NoTracing()


def open_tracing(service: str, instance: str, environment: Mapping[str, str]) -> Tracing:
    """As the environment says; `service` is what spans say they are of where it does not.

    Starts a thread: for a process that forks no more.
    """
    if not is_tracing(environment):
        return NO_TRACING
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), None)
    if protocol not in (None, _OUR_PROTOCOL):
        logger.error("event=tracing_off got=%s allowed=%s", protocol, _OUR_PROTOCOL)
        return NO_TRACING
    try:
        from worker.contract.otlp import OtlpTracing  # 0.1 s and 13 MB

        return OtlpTracing(service, instance)
    except ModuleNotFoundError as error:
        logger.error("event=tracing_off reason=%s: pip install 'triptych[tracing]'", error)
    except ValueError as error:  # of what the SDK reads, as a batch that its queue cannot hold
        logger.error("event=tracing_off reason=%s", error)
    return NO_TRACING


def is_tracing(environment: Mapping[str, str]) -> bool:
    """Whether an endpoint is named, and OpenTelemetry not switched off."""
    is_off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    is_unsent = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    is_named = any(environment.get(name, "").strip() for name in _ENDPOINTS)
    return is_named and not is_off and not is_unsent
