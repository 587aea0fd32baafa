"""What is said of a piece of work that is over. Who sends it, and where to, is in `tracing`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from worker.contract.trace_context import TraceContext

Kind: TypeAlias = Literal["server", "consumer", "internal"]
Attributes: TypeAlias = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Span:
    """A span that is over. Times are Unix nanoseconds.

    context    its own
    parent_id  of the span that it is part of; None: it began the trace
    error      the kind of what went wrong; None: nothing did
    """

    name: str
    context: TraceContext
    parent_id: str | None
    start_ns: int
    end_ns: int
    attributes: Attributes
    kind: Kind = "internal"
    error: str | None = None
