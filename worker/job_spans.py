"""The spans of a job in the trace of its request: its wait, its run, and the stages of that.

The run's id follows from the job and the attempt, so any thread can record a stage of it before the
run itself is over and recorded. Knows nothing of what the stages do.
"""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b

from worker.contract.record import Record
from worker.contract.spans import Attributes, Span
from worker.contract.trace_context import TraceContext
from worker.contract.tracing import Tracing

_NS = 10**9


class JobSpans:
    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    @contextmanager
    def stage(self, name: str, records: Sequence[Record], attributes: Attributes) -> Iterator[None]:
        """Record what happens in the block as a part of the run of each of these jobs."""
        runs = self._runs(records)
        if not runs:
            yield
            return
        start_ns, before, error = time.time_ns(), time.perf_counter_ns(), None
        try:
            yield
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            end_ns = start_ns + time.perf_counter_ns() - before
            for run in runs:
                self._record_stage(name, run, start_ns, end_ns, attributes, error)

    def note_stage(
        self, name: str, record: Record, began_at: float, ended_at: float, attributes: Attributes
    ) -> None:
        """Record a stage that is over, with its times by the monotonic clock."""
        for run in self._runs([record]):
            clock_ns = time.time_ns() - time.monotonic_ns()
            start_ns, end_ns = (clock_ns + int(_NS * at) for at in (began_at, ended_at))
            self._record_stage(name, run, start_ns, end_ns, attributes, None)

    def note_run(self, record: Record, ended_at: float, outcome: str, error: str | None) -> None:
        """Record a job's wait and its run, which end with this attempt. In Unix seconds."""
        for run in self._runs([record]):
            job, started_at = record.job, record.started_at
            assert job.trace is not None, "this is a bug: its run is traced"
            assert started_at is not None, "this is a bug: it has run"
            created_ns, started_ns, ended_ns = (
                int(_NS * at) for at in (job.created_at, started_at, ended_at)
            )
            wait = replace(run, span_id=secrets.token_hex(8))
            self._tracing.record(
                Span(f"queue {record.task}", wait, job.trace.span_id, created_ns,
                     max(created_ns, started_ns), {"triptych.job.id": record.id})
            )  # fmt: skip
            said: dict[str, str | int] = {
                "triptych.job.id": record.id,
                "triptych.model": job.model,
                "triptych.outcome": outcome,
                "triptych.attempt": record.attempt,
            }
            if error is not None:
                said["error.type"] = error
            self._tracing.record(
                Span(f"run {record.task}", run, job.trace.span_id, started_ns,
                     max(started_ns, ended_ns), said, "consumer", error)
            )  # fmt: skip

    def _runs(self, records: Sequence[Record]) -> list[TraceContext]:
        """The spans of those attempts that are recorded."""
        if not self._tracing.is_on:
            return []
        traced = ((record, record.job.trace) for record in records)
        return [
            replace(trace, span_id=_run_id(record))
            for record, trace in traced
            if trace is not None and trace.is_sampled
        ]

    def _record_stage(
        self,
        name: str,
        run: TraceContext,
        start_ns: int,
        end_ns: int,
        attributes: Attributes,
        error: str | None,
    ) -> None:
        said: Mapping[str, str | int | float | bool] = attributes
        if error is not None:
            said = {**attributes, "error.type": error}
        stage = replace(run, span_id=secrets.token_hex(8))
        self._tracing.record(Span(name, stage, run.span_id, start_ns, end_ns, said, error=error))


def _run_id(record: Record) -> str:
    return blake2b(f"{record.id} {record.attempt}".encode(), digest_size=8).hexdigest()
