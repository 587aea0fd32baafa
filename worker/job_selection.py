"""Which jobs of its queue a worker takes: those for the models on its device, in their order.

Jobs of its other models wait until those are there (see `residency`). Workers of one queue may be
given different lists, so the others' jobs stay where they are. Two kinds are taken all the same, to
end with the reason: those whose model could be loaded nowhere, and those whose model no living
worker has had for a while. Which of the jobs is next is decided in `contract/waiting_scripts`.
"""

import time
from collections.abc import Callable, Collection
from typing import Protocol

from redis import Redis

from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.record import Record
from worker.contract.records import Records, Room
from worker.contract.workers import ModelState, WorkerState
from worker.jobs_in_hand import JobsInHand

_POLL_S = 0.05  # while there are jobs for others alone, or room for new groups alone
_CHECK_S = 1.0  # how often it is asked who serves those
_STALE_S = 5.0  # an answer older than that counts for nothing
_UNSERVED_S = 60.0  # longer than a worker takes from its end to its first sign of life


class Models(Protocol):
    """What the selection asks of the worker's models: `residency.Residency` in the real worker."""

    @property
    def names(self) -> Collection[str]: ...
    @property
    def open_to_jobs(self) -> Collection[str]: ...
    @property
    def failed(self) -> Collection[str]: ...
    @property
    def is_busy(self) -> bool: ...
    def advance(self, waiting: Collection[str], is_idle: bool, in_use: Collection[str]) -> None: ...
    def wait(self, timeout_s: float) -> None: ...
    def idle_s(self) -> float: ...


class JobSelection:
    """One thread owns the queue and calls this."""

    def __init__(
        self,
        redis: Redis,
        records: Records,
        jobs: JobsInHand,
        task: Task,
        models: Models,
        unserved_s: float = _UNSERVED_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._records = records
        self._jobs = jobs
        self._task = task
        self._models = models
        self._unserved_s = unserved_s
        self._now = now
        self._waiting: Collection[str] = ()  # of our models, those that are to come for their jobs
        self._others: Collection[str] = ()  # models of other workers, whose jobs stand in the queue
        self._was_empty = True  # no job was there for us the last time
        self._claimed_at = -_POLL_S
        self._unserved_since: dict[str, float] = {}
        self._checked_at = -_CHECK_S
        self._served: set[str] = set()
        self._read_at = -_CHECK_S

    def advance_models(self, in_use: Collection[str]) -> None:
        """Let models come and go between two pieces of work; those in use stay where they are."""
        self._models.advance(self._waiting, self._was_empty and not in_use, in_use)

    def wait(self, timeout_s: float) -> None:
        """Wait for a job, for a model that is on its way, or for what others will do.

        Meanwhile a signal may strike at any point.
        """
        if self._models.is_busy and not (self._models.open_to_jobs and self._sees_all):
            self._models.wait(_POLL_S)
        elif not self._sees_all:
            time.sleep(_POLL_S)
        else:
            idle_s = 0.0 if self._models.is_busy else self._models.idle_s()
            self._records.await_jobs(self._task, min(timeout_s, idle_s + _POLL_S))

    def claim(self, room: Room) -> list[Record]:
        """Start the next jobs that are for us and that there is room for."""
        if not self._is_worth_a_claim(room):
            return []
        claim = self._jobs.claim(self._task, self._claimable(), room)
        self._claimed_at = self._now()
        self._was_empty = not claim.records
        self._waiting = [model for model in claim.others if model in self._models.names]
        self._others = [model for model in claim.others if model not in self._waiting]
        self._note_unserved(self._others)
        return claim.records

    def _is_worth_a_claim(self, room: Room) -> bool:
        """Between two steps, jobs of new groups alone are looked for now and then.

        A claim whose reply is lost may have taken jobs already, and for these there was room.
        """
        if self._jobs.has_unanswered_claim:
            return True
        if room.is_for_new_groups_alone and self._now() - self._claimed_at < _POLL_S:
            return False
        return not room.is_none

    @property
    def _sees_all(self) -> bool:
        """Whether nothing stands in the queue that is not for us now: the next to come may be."""
        return not self._waiting and not self._others

    def _claimable(self) -> list[str]:
        """What can be run, what can only fail, and what nobody has served for too long."""
        failed = self._models.failed
        hopeless = set(failed) - self._served_elsewhere() if failed else set()
        now = self._now()
        if now - self._checked_at > _STALE_S:
            self._unserved_since.clear()  # nobody looked meanwhile
        over = (m for m, since in self._unserved_since.items() if now - since >= self._unserved_s)
        return [*self._models.open_to_jobs, *hopeless, *over]

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
