"""Batches of rows: prepare each job, one forward a group, end each job on its own.

While a forward runs, the next jobs are prepared on a thread beside it; where nothing runs they are
prepared at once, so that a single request waits for no thread. A bad input ends its own job, a
failed forward the jobs of its group, and nothing ends the loop. Where memory lacks for a forward it
is run by halves, down to the one row that does not fit alone.
"""

import logging
import math
import queue
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from worker.batch import BatchKey, Row, next_forward
from worker.contract.jobs import Task
from worker.contract.record import AnyJob, AnyResult, Outcome, Record
from worker.contract.records import Room
from worker.failures import explain, is_out_of_memory
from worker.forward_threads import ForwardThreads
from worker.metrics import WorkerMetrics
from worker.pieces import Pieces
from worker.side_thread import SideThread
from worker.work import Settle

_WAIT_S = 0.05  # for what is being prepared, before jobs are looked for again
_BATCHES_IN_HAND = 2  # one runs, one is prepared
_FEWER_FOR_S = 60.0  # what took the memory may be gone then: all rows are tried again
_PREPARING = {Task.CLASSIFY: "preprocess", Task.EMBEDDINGS: "tokenize"}  # the stage's name

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class RowTask(Protocol[T, R]):
    """What classify and embeddings each do in their own way."""

    def prepare(self, job: AnyJob) -> list[Row[T]]:
        """Turn each input into a row, on any thread; BadInputError for a bad one."""

    def forward(self, model: str, prepared: Sequence[T]) -> Sequence[R]:
        """Run rows of one key through the model, on any thread."""

    def count(self, model: str, prepared: Sequence[T]) -> None:
        """Note in the metrics what a forward has done."""

    def result(self, job: AnyJob, rows: Sequence[R]) -> AnyResult:
        """Put a job's rows together, in the order of its inputs."""

    def warm_up(self, model: str) -> None:
        """Run one small forward of a resident model."""


@dataclass(eq=False, slots=True)
class _OpenJob(Generic[R]):
    """An attempt in hand: a job that was put back meanwhile may be here twice."""

    record: Record
    done: dict[int, R] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        return len(self.done) == self.record.num_rows


@dataclass(frozen=True, slots=True)
class _Prepared(Generic[T, R]):
    """A job's rows, or why there are none."""

    job: _OpenJob[R]
    rows: Sequence[Row[T]] = ()
    error: Exception | None = None
    prepared_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _ReadyRow(Generic[T, R]):
    job: _OpenJob[R]
    index: int  # place within the job
    row: Row[T]
    prepared_at: float  # by the monotonic clock

    @property
    def key(self) -> BatchKey:
        return self.row.key


class _RowsThatFit:
    """How many rows of a key one forward may have, by what the memory held lately."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._fewer: dict[BatchKey, tuple[int, float]] = {}  # rows, and until when

    def of(self, key: BatchKey) -> int:
        num_rows, until = self._fewer.get(key, (self._most, math.inf))
        if time.monotonic() < until:
            return num_rows
        del self._fewer[key]
        return self._most

    def halve(self, key: BatchKey, num_rows: int) -> None:
        """Note that so many did not fit."""
        self._fewer[key] = max(1, num_rows // 2), time.monotonic() + _FEWER_FOR_S


class RowWork(Generic[T, R]):
    def __init__(
        self,
        task: Task,
        row_task: RowTask[T, R],
        max_rows: int,
        settle: Settle,
        metrics: WorkerMetrics,
    ) -> None:
        self._task = task
        self._row_task = row_task
        self._max_rows = max_rows
        self._rows_that_fit = _RowsThatFit(max_rows)
        self._settle = settle
        self._metrics = metrics
        self._open: set[_OpenJob[R]] = set()
        self._ready: list[_ReadyRow[T, R]] = []
        self._prepared: queue.SimpleQueue[list[_Prepared[T, R]]] = queue.SimpleQueue()
        self.pieces = Pieces()
        self._threads = ForwardThreads()
        self._prepare_thread = SideThread("prepare", self._prepare_beside, self.pieces)

    @property
    def is_idle(self) -> bool:
        return not self._open

    @property
    def models_in_use(self) -> Collection[str]:
        return {job.record.job.model for job in self._open}

    def room(self) -> Room:
        most = _BATCHES_IN_HAND * self._max_rows
        in_hand: Counter[str] = Counter()
        for job in self._open:
            in_hand[job.record.group] += job.record.num_rows
        rows = {group: most - num_rows for group, num_rows in in_hand.items()}
        return Room(max_jobs=most - len(self._open), rows_of_new_group=most, rows=rows)

    def add(self, records: Sequence[Record]) -> None:
        jobs: list[_OpenJob[R]] = [_OpenJob(record) for record in records]
        batches = _batches(jobs, self._max_rows)
        at_once = [batches.pop(0)] if self.is_idle else []
        self._open.update(jobs)
        self._prepare_thread.add(batches)
        for batch in at_once:
            self._take_in(self._prepare(batch))

    def advance(self) -> None:
        """Run the next forward; where none is ready yet, wait for it a little."""
        self._prepare_thread.check()
        try:
            self._take_in(self._prepared.get(not self._ready, _WAIT_S))
            while True:
                self._take_in(self._prepared.get_nowait())
        except queue.Empty:
            pass
        if self._ready:
            max_rows = self._rows_that_fit.of(self._ready[0].key)
            group, self._ready = next_forward(self._ready, max_rows)
            self._note_waits(group)
            self._forward(group)

    def give_back(self) -> list[Record]:
        given_back, self._open, self._ready = self._open, set(), []
        return [job.record for job in given_back]

    def finish(self) -> None:
        self._prepare_thread.finish()
        self._threads.finish()

    def salvage(self, timeout_s: float) -> None:
        """Nothing: what a forward gave is settled at its end."""

    @property
    def wants_time(self) -> bool:
        return False

    def use_time(self) -> None:
        raise AssertionError("there is nothing that could wait: this is a bug")

    def warm_up(self, model: str) -> None:
        self._row_task.warm_up(model)

    def _prepare_beside(self, batches: Sequence[Sequence[_OpenJob[R]]]) -> None:
        for batch in batches:
            self.pieces.begin_next()
            self._prepared.put(self._prepare(batch))

    def _prepare(self, jobs: Sequence[_OpenJob[R]]) -> list[_Prepared[T, R]]:
        return [self._prepare_one(job) for job in jobs]

    def _prepare_one(self, job: _OpenJob[R]) -> _Prepared[T, R]:
        try:
            with self._metrics.stage(_PREPARING[self._task], [job.record]):
                return _Prepared(job, self._row_task.prepare(job.record.job))
        except Exception as error:  # the job's own end; the thread goes on
            return _Prepared(job, error=error)

    def _take_in(self, prepared: Iterable[_Prepared[T, R]]) -> None:
        failed: dict[_OpenJob[R], Outcome] = {}
        for each in prepared:
            self._ready.extend(
                _ReadyRow(each.job, index, row, each.prepared_at)
                for index, row in enumerate(each.rows)
            )
            if each.error is not None:
                failed[each.job] = explain(each.job.record.job, each.error)
        self._end(failed)

    def _note_waits(self, group: Sequence[_ReadyRow[T, R]]) -> None:
        now, waits = time.monotonic(), self._metrics.batch_wait.labels(self._task)
        for row in group:
            waits.observe(now - row.prepared_at)

    def _forward(self, group: Sequence[_ReadyRow[T, R]]) -> None:
        live = [each for each in group if each.job in self._open]
        if not live:
            return
        jobs = list(dict.fromkeys(each.job for each in live))
        try:
            outputs = self._outputs(live)
        except Exception as error:
            self._end({job: explain(job.record.job, error) for job in jobs})
            return
        if outputs is None:
            half = len(live) // 2
            self._forward(live[:half])
            self._forward(live[half:])
            return
        for each, output in zip(live, outputs, strict=True):
            each.job.done[each.index] = output
        self._end({job: self._result(job) for job in jobs if job.is_done})

    def _outputs(self, rows: Sequence[_ReadyRow[T, R]]) -> Sequence[R] | None:
        """Run rows of one key through the model; None where the memory holds fewer at once."""
        key = rows[0].key
        records = [job.record for job in dict.fromkeys(row.job for row in rows)]
        said = {"triptych.batch.rows": len(rows), "triptych.jobs": len(records)}
        self.pieces.begin_next()
        try:
            with self._metrics.stage("forward", records, said):
                prepared = [row.row.prepared for row in rows]
                forward = partial(self._row_task.forward, key.model)
                outputs = self._threads.run(key, prepared, forward)
            self._metrics.batch_size.labels(self._task).observe(len(rows))
            self._row_task.count(key.model, prepared)
            return outputs
        except Exception as error:
            self._metrics.note_error(key.model, error)
            if len(rows) == 1 or not is_out_of_memory(error):
                raise
        logger.warning("event=fewer_rows model=%s rows=%d", key.model, len(rows))
        self._rows_that_fit.halve(key, len(rows))
        return None

    def _result(self, job: _OpenJob[R]) -> Outcome:
        rows = [job.done[index] for index in range(job.record.num_rows)]
        try:
            return self._row_task.result(job.record.job, rows)
        except Exception as error:
            return explain(job.record.job, error)

    def _end(self, outcomes: Mapping[_OpenJob[R], Outcome]) -> None:
        self._open.difference_update(outcomes)
        self._settle([(job.record, outcome) for job, outcome in outcomes.items()])


def _batches(jobs: Sequence[_OpenJob[R]], max_rows: int) -> list[list[_OpenJob[R]]]:
    """Cut at whole jobs, each part but the last one of `max_rows` rows or a few more."""
    batches: list[list[_OpenJob[R]]] = []
    num_rows = max_rows
    for job in jobs:
        if num_rows >= max_rows:
            batches.append([])
            num_rows = 0
        batches[-1].append(job)
        num_rows += job.record.num_rows
    return batches
