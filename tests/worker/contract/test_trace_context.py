"""The W3C's headers: what names a span, and what is as if it were not there."""

import sys

import pytest

from worker.contract.trace_context import parse_trace_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"


def test_a_traceparent_comes_back_as_it_was() -> None:
    context = parse_trace_context(GIVEN, "vendor=1")
    assert context is not None
    assert (context.trace_id, context.span_id, context.is_sampled) == (TRACE, SPAN, True)
    assert context.traceparent == GIVEN
    assert context.tracestate == "vendor=1"


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("03", True)])
def test_the_lowest_flag_says_whether_it_is_recorded(flags: str, is_sampled: bool) -> None:
    context = parse_trace_context(f"00-{TRACE}-{SPAN}-{flags}", None)
    assert context is not None
    assert context.is_sampled is is_sampled


def test_a_later_version_may_say_more() -> None:
    assert parse_trace_context(f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be", None) is not None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE[1:]}-{SPAN}-01",
    ],
)
def test_what_names_no_span_is_ignored(header: str) -> None:
    assert parse_trace_context(header, None) is None


def test_a_header_of_any_length_is_not_kept() -> None:
    header, state = f"cc-{TRACE}-{SPAN}-01-{'x' * 60_000}", "x" * 60_000
    before = sys.getrefcount(header), sys.getrefcount(state)
    assert parse_trace_context(header, state) is not None
    assert (sys.getrefcount(header), sys.getrefcount(state)) == before


@pytest.mark.parametrize("tracestate", ["x" * 513, "a=\n", "a=é"])
def test_a_strange_tracestate_is_dropped_and_the_trace_kept(tracestate: str) -> None:
    context = parse_trace_context(GIVEN, tracestate)
    assert context is not None
    assert context.tracestate is None
