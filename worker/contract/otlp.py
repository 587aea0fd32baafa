"""Spans by OpenTelemetry's SDK, in batches over HTTP; the SDK reads its variables itself.

A span is handed over when it is over, which costs a tenth of one that is begun and ended. Imported
by `tracing` alone, and only where an endpoint is named.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from worker.contract.spans import Span
from worker.contract.trace_context import TraceContext

FLUSH_S = 2.0  # at the end: a collector that hangs must not keep a process from ending
LAST_SPANS: Final = "last spans"  # the name of the thread that sends them
# By default; one of five spans costs a quarter of the cheapest request's CPU time, and a process
# answers hundreds of those a second (benchmarks.trace_cost).
_NEW_TRACES_PER_S = 10
_KINDS = {
    "server": SpanKind.SERVER,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}
_SCOPE = InstrumentationScope("triptych")
_OK = Status()
# They say every batch that fails, and every span that found no place; `_Exporter` says it once.
# The last one repeats every `tracestate` of a client that is not in order.
_TOO_TALKATIVE = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.trace.span",
)

logger = logging.getLogger(__name__)


class OtlpTracing:
    is_on = True

    def __init__(self, service: str, instance: str) -> None:
        for name in _TOO_TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        ours = Resource.create({"service.name": service, "service.instance.id": instance})
        resource = ours.merge(OTELResourceDetector().detect())  # the environment's word wins
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        is_told = bool(os.environ.get("OTEL_TRACES_SAMPLER", "").strip())
        self._sampler = provider.sampler if is_told else None
        self._new_traces = _AtMost(_NEW_TRACES_PER_S)
        self._resource = provider.resource
        self._processor = BatchSpanProcessor(_Exporter(OTLPSpanExporter()))

    def begin(self, name: str, given: TraceContext | None) -> TraceContext | None:
        """In the trace that came with it, or in a new one, where that is to be recorded.

        Else what came is passed on: a trace that nobody records needs no ids.
        """
        trace_id = None if given is None else given.trace_id
        if self._sampler is None:
            is_sampled = self._new_traces.has_one_more() if given is None else given.is_sampled
        else:
            trace_id = trace_id or _new_trace_id()
            is_sampled = _says_yes(self._sampler, trace_id, given, name)
        if not is_sampled:
            return replace(given, is_sampled=False) if given and given.is_sampled else given
        state = None if given is None else given.tracestate
        return TraceContext(trace_id or _new_trace_id(), secrets.token_hex(8), True, state)

    def record(self, span: Span) -> None:
        parent = None
        if span.parent_id is not None:
            parent = _span_context(span.context, span.parent_id, is_remote=span.kind != "internal")
        self._processor.on_end(
            ReadableSpan(
                span.name,
                _span_context(span.context, span.context.span_id, is_remote=False),
                parent,
                self._resource,
                span.attributes,
                kind=_KINDS[span.kind],
                instrumentation_scope=_SCOPE,
                status=_OK if span.error is None else Status(StatusCode.ERROR),
                start_time=span.start_ns,
                end_time=span.end_ns,
            )
        )

    def close(self) -> None:
        # the SDK's own limit is 30 s, and no argument of it
        closing = threading.Thread(target=self._processor.shutdown, name=LAST_SPANS, daemon=True)
        closing.start()
        closing.join(FLUSH_S)


class _AtMost:
    """So many new traces a second: all of few requests, and some of many.

    Decided before anything else is done for a trace, as most of a busy service's are not recorded.
    """

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._second = 0
        self._num_begun = 0

    def has_one_more(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._num_begun = second, 0
        if self._num_begun >= self._per_s:
            return False
        self._num_begun += 1
        return True


class _Exporter(SpanExporter):
    """Says once that spans are lost, and once how many were."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._num_lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self._num_lost:
                logger.warning("event=spans_lost reason=the collector does not take them")
            self._num_lost += len(spans)
        elif self._num_lost:
            logger.warning("event=spans_sent_again at_least_lost=%d", self._num_lost)
            self._num_lost = 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _new_trace_id() -> str:
    return secrets.token_hex(16)


def _says_yes(sampler: Sampler, trace_id: str, given: TraceContext | None, name: str) -> bool:
    context = None if given is None else _as_context(given)
    said = sampler.should_sample(context, int(trace_id, 16), name, SpanKind.SERVER)
    return said.decision is Decision.RECORD_AND_SAMPLE


def _as_context(given: TraceContext) -> Context:
    span = NonRecordingSpan(_span_context(given, given.span_id, is_remote=True))
    return set_span_in_context(span, Context())


def _span_context(context: TraceContext, span_id: str, *, is_remote: bool) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(span_id, 16),
        is_remote,
        TraceFlags(TraceFlags.SAMPLED if context.is_sampled else TraceFlags.DEFAULT),
        None if context.tracestate is None else TraceState.from_header([context.tracestate]),
    )
