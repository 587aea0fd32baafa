"""Where a job stands in the trace of its request, as the W3C's headers say it.

https://www.w3.org/TR/trace-context/: `traceparent` has the trace, the span that asked and whether
it is recorded; `tracestate` is others' own and is passed on as it came. Knows nothing of spans.
"""

import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")  # as long as everybody must pass on
_SAMPLED = 1  # the flag's bit


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span: hexadecimal ids, of 32 and 16 digits, and whether the trace is recorded."""

    trace_id: str
    span_id: str
    is_sampled: bool
    tracestate: str | None = None

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED if self.is_sampled else 0:02x}"


def parse_trace_context(traceparent: str, tracestate: str | None) -> TraceContext | None:
    """Read both headers; None where they name no span, as if there were none.

    Of the tracestate, whose lines are joined by commas, too much or anything strange is dropped.
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) * int(span_id, 16):
        return None
    if tracestate is not None and not _TRACESTATE.fullmatch(tracestate):
        tracestate = None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), tracestate)
