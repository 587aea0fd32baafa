"""What does tracing cost? `python -m benchmarks.trace_cost`.

Runs three services, one that traces nothing, one that records the default of so many new traces a
second, and one that records every request; spans go to a receiver of our own. Loads them in turns
with texts for a model that does nothing: no request is cheaper. Compares the CPU time that one
takes of the API, the worker and the queue, which what else the machine does meanwhile changes less
than how many there are a second.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.constant_model import MODEL
from benchmarks.load_client import LoadPlan, post, run_loads
from benchmarks.machine import processor
from benchmarks.process_tree import cpu_s
from benchmarks.reports import publish
from benchmarks.running_service import RunningService, running
from benchmarks.trace import TraceReceiver

_NUM_CLIENTS = 32
_NUM_TEXTS = 5000
_SERVE = ("benchmarks.constant_model", "serve")


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians of the rounds; `cpu_ms` is of one request."""

    cpu_ms: float
    per_s: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: str
    num_rounds: int
    costs: Mapping[str, Cost]
    extra_cpu: Mapping[str, float]  # the median of the rounds' shares: 0.01 is 1 % more than off
    trace_cpu_ms: float  # of one trace, in all processes
    default_traces_per_s: float
    extra_cpu_by_traces: float  # what so many traces cost of what so many requests do


def texts() -> Sequence[bytes]:
    return [
        post("/v1/embeddings", {"input": f"a red circle on white, number {number}", "model": MODEL})
        for number in range(_NUM_TEXTS)
    ]


def round_of(service: RunningService, requests: Sequence[bytes], seconds: float) -> Cost:
    before = cpu_s(service.pid)
    plan = LoadPlan(service.port, requests, _NUM_CLIENTS, seconds, warm_up_s=0)
    [done] = run_loads(plan)
    return Cost(1e3 * (cpu_s(service.pid) - before) / done.num_requests, done.per_s)


def rounds(
    services: Mapping[str, RunningService], num_rounds: int, seconds: float
) -> Iterator[Mapping[str, Cost]]:
    """What each service costs, round by round; the first warms up and does not count."""
    requests, names = texts(), [*services]
    for number in range(num_rounds + 1):
        names = [*names[1:], names[0]]  # each is the first as often
        costs = {name: round_of(services[name], requests, seconds) for name in names}
        if number:
            yield costs


def measure(num_rounds: int, seconds: float) -> Report:
    with ExitStack() as stack:
        receivers = {name: stack.enter_context(TraceReceiver()) for name in ("default", "every")}
        services = {
            "off": stack.enter_context(running(*_SERVE)),
            **{
                name: stack.enter_context(
                    running(*_SERVE, log=None, **_environment(name, receiver))
                )
                for name, receiver in receivers.items()
            },
        }
        found = list(rounds(services, num_rounds, seconds))
        spans = receivers["default"].wait_for_more(0)
    costs = {name: _median([each[name] for each in found]) for name in services}
    num_traces = len({span.trace_id for span in spans})
    off, traces_per_s = costs["off"], num_traces / ((num_rounds + 1) * seconds)
    trace_ms = statistics.median(each["every"].cpu_ms - each["off"].cpu_ms for each in found)
    return Report(
        machine=processor(),
        num_rounds=num_rounds,
        costs=costs,
        extra_cpu={
            name: round(
                statistics.median(each[name].cpu_ms / each["off"].cpu_ms - 1 for each in found), 4
            )
            for name in receivers
        },
        trace_cpu_ms=round(trace_ms, 3),
        default_traces_per_s=round(traces_per_s, 1),
        extra_cpu_by_traces=round(traces_per_s * trace_ms / (off.per_s * off.cpu_ms), 4),
    )


def _environment(name: str, receiver: TraceReceiver) -> Mapping[str, str]:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.environment["OTEL_EXPORTER_OTLP_ENDPOINT"]}
    return endpoint if name == "default" else {**endpoint, "OTEL_TRACES_SAMPLER": "always_on"}


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        cpu_ms=round(statistics.median(cost.cpu_ms for cost in costs), 3),
        per_s=round(statistics.median(cost.per_s for cost in costs), 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--round-s", type=float, default=4.0)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    publish(measure(arguments.rounds, arguments.round_s), arguments.output)


if __name__ == "__main__":
    main()
