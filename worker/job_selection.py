"""Which jobs of its queue a worker takes: those for the models that it holds, in their order.

Workers of one queue may be given different lists, so the others' jobs stay where they are. Two
kinds are taken all the same, to end with the reason: those past their deadline, and those whose
model no living worker has had for a while.
"""

import time
from collections.abc import Callable, Collection

from redis import Redis
from rq.exceptions import DequeueTimeout
from rq.queue import Queue

from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.records import Records, queue_key
from worker.contract.workers import ModelState

_POLL_S = 0.05  # while there are jobs for others alone
_CHECK_S = 1.0  # how often it is asked who serves those
_STALE_S = 5.0  # an answer older than that counts for nothing
_UNSERVED_S = 60.0  # longer than a worker takes from its end to its first sign of life


class JobSelection:
    """One thread owns the queue and calls this."""

    def __init__(
        self,
        redis: Redis,
        records: Records,
        task: Task,
        ours: Collection[str],
        unserved_s: float = _UNSERVED_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._records = records
        self._task = task
        self._ours = ours
        self._unserved_s = unserved_s
        self._now = now
        self._unserved_since: dict[str, float] = {}
        self._checked_at = -_CHECK_S

    def next_now(self) -> str | None:
        """Move the next job's id to RQ's intermediate list; None where no job is for us."""
        job_id, others = self._records.select(self._task, self._taken())
        if job_id is None:
            self._note_unserved(others)
        return job_id

    def next(self, timeout_s: float) -> str:
        """The same, waiting for it; raises RQ's DequeueTimeout."""
        end = time.monotonic() + timeout_s
        while True:
            job_id, others = self._records.select(self._task, self._taken())
            remaining_s = end - time.monotonic()
            if job_id is None and remaining_s > 0:
                self._note_unserved(others)
                if others:
                    time.sleep(min(_POLL_S, remaining_s))
                    continue
                job_id = self._wait_for_entry(remaining_s)
            if job_id is not None:
                return job_id
            if remaining_s <= 0:
                raise DequeueTimeout(timeout_s, queue_key(self._task))

    def _wait_for_entry(self, timeout_s: float) -> str | None:
        """The first id that comes, if it is for us; if not, it goes back to the front."""
        job_id = self._records.await_entry(self._task, timeout_s)
        if job_id is None or self._records.model_of(job_id) in (None, *self._ours):
            return job_id
        self._records.unstick(job_id)
        return None

    def _taken(self) -> list[str]:
        """Our models, and those that nobody has served for too long."""
        now = self._now()
        if now - self._checked_at > _STALE_S:
            self._unserved_since.clear()  # nobody looked meanwhile
        over = (m for m, since in self._unserved_since.items() if now - since >= self._unserved_s)
        return [*self._ours, *over]

    def _note_unserved(self, models: Collection[str]) -> None:
        """Begin or go on to count how long nobody has served these."""
        now = self._now()
        if models and now - self._checked_at < _CHECK_S:
            return
        self._checked_at = now
        unserved = set(models) - self._served_elsewhere() if models else set()
        self._unserved_since = {m: self._unserved_since.get(m, now) for m in unserved}

    def _served_elsewhere(self) -> set[str]:
        return {
            served.name
            for status in workers.read_all(self._redis)
            if status.task is self._task
            for served in status.models
            if served.state is not ModelState.FAILED
        }


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
