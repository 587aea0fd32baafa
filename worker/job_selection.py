"""Which jobs of its queue a worker takes: those for the models on its device, in their order.

Jobs of its other models wait until those are there (see `residency`). Workers of one queue may be
given different lists, so the others' jobs stay where they are. Three kinds are taken all the same,
to end with the reason: those past their deadline, those whose model could be loaded nowhere, and
those whose model no living worker has had for a while.
"""

import time
from collections.abc import Callable, Collection
from typing import Protocol

from redis import Redis
from rq.exceptions import DequeueTimeout
from rq.queue import Queue

from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.records import Records, queue_key
from worker.contract.workers import ModelState, WorkerState

_POLL_S = 0.05  # while there are jobs for others alone
_CHECK_S = 1.0  # how often it is asked who serves those
_STALE_S = 5.0  # an answer older than that counts for nothing
_UNSERVED_S = 60.0  # longer than a worker takes from its end to its first sign of life


class Models(Protocol):
    """What the selection asks of the worker's models: `residency.Residency` in the real worker."""

    @property
    def names(self) -> Collection[str]: ...
    @property
    def resident(self) -> Collection[str]: ...
    @property
    def failed(self) -> Collection[str]: ...
    @property
    def is_busy(self) -> bool: ...
    def advance(self, waiting: Collection[str], is_idle: bool) -> None: ...
    def wait(self, timeout_s: float) -> None: ...
    def idle_s(self) -> float: ...


class JobSelection:
    """One thread owns the queue and calls this."""

    def __init__(
        self,
        redis: Redis,
        records: Records,
        task: Task,
        models: Models,
        unserved_s: float = _UNSERVED_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._records = records
        self._task = task
        self._models = models
        self._unserved_s = unserved_s
        self._now = now
        self._waiting: Collection[str] = ()  # of our models, those that are to come for their jobs
        self._is_idle = True
        self._unserved_since: dict[str, float] = {}
        self._checked_at = -_CHECK_S
        self._served: set[str] = set()
        self._read_at = -_CHECK_S

    def next_now(self) -> str | None:
        """Move the next job's id to RQ's intermediate list; None where no job is for us.

        Models stay where they are meanwhile: the batch may hold jobs of any of them.
        """
        job_id, others = self._select()
        if job_id is None:
            self._note_unserved(others)
        return job_id

    def next(self, timeout_s: float) -> str:
        """The same, waiting for it, while models come and go; raises RQ's DequeueTimeout."""
        end = time.monotonic() + timeout_s
        while True:
            self._models.advance(self._waiting, self._is_idle)
            job_id, others = self._select()
            remaining_s = end - time.monotonic()
            if job_id is None and remaining_s > 0:
                job_id = self._wait(others, remaining_s)
            if job_id is not None:
                return job_id
            if remaining_s <= 0:
                raise DequeueTimeout(timeout_s, queue_key(self._task))

    def _select(self) -> tuple[str | None, list[str]]:
        job_id, passed = self._records.select(self._task, self._taken())
        self._is_idle = job_id is None
        self._waiting = [model for model in passed if model in self._models.names]
        return job_id, [model for model in passed if model not in self._waiting]

    def _wait(self, others: Collection[str], remaining_s: float) -> str | None:
        """Wait for an entry, for a model that is on its way, or for what others will do."""
        self._note_unserved(others)
        if self._models.is_busy:
            self._models.wait(_POLL_S)
            return None
        if others or self._waiting:
            time.sleep(min(_POLL_S, remaining_s))
            return None
        return self._wait_for_entry(min(remaining_s, self._models.idle_s() + _POLL_S))

    def _wait_for_entry(self, timeout_s: float) -> str | None:
        """The first id that comes, if it is for us; if not, it goes back to the front."""
        job_id = self._records.await_entry(self._task, timeout_s)
        if job_id is None or self._records.model_of(job_id) in (None, *self._taken()):
            return job_id
        self._records.unstick(job_id)
        return None

    def _taken(self) -> list[str]:
        """What can be run, what can only fail, and what nobody has served for too long."""
        failed = self._models.failed
        hopeless = set(failed) - self._served_elsewhere() if failed else set()
        now = self._now()
        if now - self._checked_at > _STALE_S:
            self._unserved_since.clear()  # nobody looked meanwhile
        over = (m for m, since in self._unserved_since.items() if now - since >= self._unserved_s)
        return [*self._models.resident, *hopeless, *over]

    def _note_unserved(self, models: Collection[str]) -> None:
        """Begin or go on to count how long nobody has served these."""
        now = self._now()
        if models and now - self._checked_at < _CHECK_S:
            return
        self._checked_at = now
        unserved = set(models) - self._served_elsewhere() if models else set()
        self._unserved_since = {m: self._unserved_since.get(m, now) for m in unserved}

    def _served_elsewhere(self) -> set[str]:
        """What some living worker has, or will have; asked once a second."""
        if self._now() - self._read_at >= _CHECK_S:
            self._read_at = self._now()
            self._served = {
                served.name
                for status in workers.read_all(self._redis)
                if status.task is self._task and status.state is not WorkerState.DRAINING
                for served in status.models
                if served.state is not ModelState.FAILED
            }
        return self._served


def selecting_queue(selection: JobSelection) -> type[Queue]:
    """RQ's queue class, which takes ids as the selection says."""

    class SelectingQueue(Queue):
        @classmethod
        def lmove(
            cls,
            connection: Redis,  # noqa: ARG003  # RQ's signature
            queue_key: str,
            timeout: int | None,
        ) -> tuple[str, str] | None:
            if timeout is not None:
                return queue_key, selection.next(timeout)
            job_id = selection.next_now()
            return None if job_id is None else (queue_key, job_id)

    return SelectingQueue
