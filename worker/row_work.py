"""Batches of rows: prepare each job, one forward a group, end each job on its own.

A bad input ends its own job, a failed forward the jobs of its group, and nothing ends the loop.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from worker.batch import Row, plan
from worker.contract.jobs import Task
from worker.contract.records import AnyJob, AnyResult, Outcome, Record
from worker.failures import explain
from worker.metrics import WorkerMetrics

T = TypeVar("T")
R = TypeVar("R")

Settle = Callable[[Record, Outcome], None]


class RowTask(Protocol[T, R]):
    """What classify and embeddings each do in their own way."""

    def prepare(self, job: AnyJob) -> list[Row[T]]:
        """Turn the inputs into rows; BadInputError for a bad one."""

    def forward(self, model: str, prepared: Sequence[T]) -> Sequence[R]:
        """Run rows of one key through the model."""

    def result(self, job: AnyJob, rows: Sequence[R]) -> AnyResult:
        """Put a job's rows together, in the order of its inputs."""

    def warm_up(self, model: str) -> None:
        """Load a preset and run one small forward."""


class RowWork(Generic[T, R]):
    def __init__(
        self, task: Task, row_task: RowTask[T, R], max_rows: int, metrics: WorkerMetrics
    ) -> None:
        self._task = task
        self._row_task = row_task
        self._max_rows = max_rows
        self._metrics = metrics

    def warm_up(self, model: str) -> None:
        self._row_task.warm_up(model)

    def run(self, records: Sequence[Record], settle: Settle) -> None:
        """Do the jobs of these records, settling each as soon as its last row is there."""
        run = _Run(self._row_task, records, settle)
        for group in plan(run.prepare(), self._max_rows):
            model = group[0].key.model
            self._metrics.batch_size.labels(self._task, model).observe(len(group))
            run.forward(model, group)


class _Run(Generic[T, R]):
    """One call of `RowWork.run`: which jobs are still open and which of their rows are done."""

    def __init__(self, row_task: RowTask[T, R], records: Sequence[Record], settle: Settle) -> None:
        self._row_task = row_task
        self._settle = settle
        self._open = {record.id: record for record in records}
        self._num_rows: dict[str, int] = {}
        self._done: dict[str, dict[int, R]] = {record.id: {} for record in records}

    def prepare(self) -> list[Row[T]]:
        rows: list[Row[T]] = []
        for record in list(self._open.values()):
            try:
                prepared = self._row_task.prepare(record.job)
            except Exception as error:
                self._fail([record.id], error)
                continue
            self._num_rows[record.id] = len(prepared)
            rows.extend(prepared)
        return rows

    def forward(self, model: str, group: Sequence[Row[T]]) -> None:
        live = [row for row in group if row.job_id in self._open]
        if not live:
            return
        try:
            outputs = self._row_task.forward(model, [row.prepared for row in live])
        except Exception as error:
            self._fail({row.job_id for row in live}, error)
            return
        for row, output in zip(live, outputs, strict=True):
            self._done[row.job_id][row.index] = output
        for job_id in dict.fromkeys(row.job_id for row in live):
            if len(self._done[job_id]) == self._num_rows[job_id]:
                self._succeed(job_id)

    def _succeed(self, job_id: str) -> None:
        done = self._done[job_id]
        record = self._open[job_id]
        try:
            result = self._row_task.result(record.job, [done[index] for index in range(len(done))])
        except Exception as error:
            self._fail([job_id], error)
            return
        del self._open[job_id]
        self._settle(record, result)

    def _fail(self, job_ids: Iterable[str], error: Exception) -> None:
        for job_id in job_ids:
            self._settle(self._open.pop(job_id), explain(job_id, error))
