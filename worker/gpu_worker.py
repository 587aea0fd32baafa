"""A worker process' loop: models come and go, jobs are claimed, work advances, until a signal.

RQ (2.12) gives it what a worker is beside that: its name among the workers, signals, suspension,
maintenance. RQ's own loop costs some 17 round trips a job and runs what an entry names, so its jobs
are taken and booked by the records' scripts instead (see `contract/record_scripts`). Traps, each
with a test:
- SimpleWorker sends no heartbeat during a job, so `keep_alive` is for our own thread to call;
- a signal may interrupt nothing but a wait, or claimed jobs would be lost until their lease ends.
Knows nothing of models and forwards.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.exceptions import StopRequested
from rq.registry import clean_registries
from rq.serializers import JSONSerializer
from rq.suspension import is_suspended
from rq.utils import now
from rq.worker.base import WorkerStatus
from rq.worker_registration import clean_worker_registry

from worker.contract.record import Record
from worker.contract.workers import WorkerState
from worker.device_loss import leave_device
from worker.failures import is_device_lost
from worker.heartbeat import Heartbeat
from worker.job_selection import JobSelection
from worker.jobs_in_hand import JobsInHand
from worker.redis_clients import is_unavailable, until_available
from worker.rq_entries import BookedJob, open_queue
from worker.work import Work

WORKER_TTL_S = 60  # RQ forgets a silent worker after this and one more minute
_CHORES_S = 5.0  # how often RQ's suspension and maintenance are looked after
_QUIET_S = 0.1  # without a job, before time is used for what can wait: few requests come alone
_PAUSE_S = 1.0  # where there is nothing to do but to look again
_WRITE_AGAIN_S = 0.2  # at the end, where Redis is away
_SALVAGE_S = 5.0  # for what needs a lost device no more
_COLD_STOP_PAUSE = timedelta(seconds=1)  # a supervisor and a terminal may both send the signal

logger = logging.getLogger(__name__)


class GpuWorker(SimpleWorker):
    def __init__(
        self,
        redis: Redis,
        work: Work,
        jobs: JobsInHand,
        selection: JobSelection,
        heartbeat: Heartbeat,
        drain_grace_s: float,
    ) -> None:
        super().__init__(
            [open_queue(redis, heartbeat.task)],
            name=heartbeat.name,
            connection=redis,
            job_class=BookedJob,
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL_S,
        )
        self._work = work
        self._jobs = jobs
        self._selection = selection
        self._heartbeat = heartbeat
        self._drain_grace_s = drain_grace_s
        self._asked_to_stop_at: float | None = None
        self._noted: WorkerState | None = None
        self._is_suspended = False
        self._is_interruptible = False
        self._chores_at = 0.0
        self.has_failed = False

    @property
    def was_asked_to_stop(self) -> bool:
        return self._shutdown_requested_date is not None

    def serve(self) -> None:
        """Take and do jobs until a signal, then end or give back those in hand.

        What escapes from the work ends the worker, with the reason in the log, and frees its jobs
        for others.
        """
        until_available(lambda: self.bootstrap(None))
        self._heartbeat.also(self.keep_alive)
        self._install_signal_handlers()  # type: ignore[no-untyped-call]
        try:
            with suppress(StopRequested):
                self._take_turns()
            self._drain()
        except Exception as error:
            if is_device_lost(error):
                self._heartbeat.note(WorkerState.DRAINING)
                leave_device(
                    self.name, error, (self._salvage, self._jobs.let_go, self._heartbeat.stop)
                )
            self.has_failed = True
            logger.critical("event=loop_failed worker=%s", self.name, exc_info=True)
        finally:
            self.teardown()

    def keep_alive(self) -> None:
        """Renew what RQ knows of this worker; called from the heartbeat's thread."""
        self.heartbeat(WORKER_TTL_S + 60)

    def register_birth(self) -> None:
        """RQ takes a name that it knows for another's; ours is nobody's, and this a second try."""
        self.connection.delete(self.key)
        super().register_birth()  # type: ignore[no-untyped-call]

    def clean_registries(self) -> None:
        """As RQ does, but for the intermediate list, which nothing of ours is ever in."""
        for queue in self.queues:
            if queue.acquire_maintenance_lock():
                try:
                    clean_registries(queue)
                    clean_worker_registry(queue)
                except Exception as error:
                    if is_unavailable(error):
                        raise
                    # a corrupt entry that another wrote must not stop this worker
                    logger.exception("event=maintenance_failed queue=%s", queue.name)
                finally:
                    queue.release_maintenance_lock()  # type: ignore[no-untyped-call]
        self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ declares None alone

    def subscribe(self) -> None:
        """Take no commands over Redis: stopping is for signals, canceling is in the records."""

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self._heartbeat.note(WorkerState.DRAINING)
        self._asked_to_stop_at = time.monotonic()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A second signal: leave at once; the leases run out and the jobs run elsewhere."""
        first = self._shutdown_requested_date
        if first is not None and now() - first >= _COLD_STOP_PAUSE:
            logger.warning("event=cold_stop worker=%s", self.name)
            os._exit(1)

    def _shutdown(self) -> None:
        """Unlike RQ's, touch no connection: this runs inside a signal handler."""
        self._stop_requested = True
        if self._is_interruptible:
            raise StopRequested

    def teardown(self) -> None:
        """Leave nothing behind; where Redis is away, leases and RQ's books end by themselves."""
        try:
            if self.has_failed:
                self._jobs.let_go()
            super().teardown()  # type: ignore[no-untyped-call]
        except RedisError as error:
            logger.warning("event=teardown_failed error=%s", type(error).__name__)

    def _set_connection(self, connection: Redis) -> Redis:
        """Unlike RQ, do not lengthen the client's timeout: no call here blocks for so long."""
        return connection

    def _take_turns(self) -> None:
        while not self._stop_requested:
            records: Sequence[Record] = ()
            with self._patience():
                self._do_chores()
                self._advance_models()
                records = self._take()
            if records:
                with self._work.pieces.at_work():
                    self._work.add(records)
            if not self._work.is_idle:
                self._note(WorkerState.BUSY)
                with self._work.pieces.at_work():
                    self._work.advance()
            else:
                self._note(WorkerState.IDLE)
                if self._work.wants_time:
                    with self._interruptible(), self._work.pieces.at_work():
                        self._work.use_time()

    def _drain(self) -> None:
        """Do what can be done in the grace period, and give back what is left between two steps."""
        asked_at = self._asked_to_stop_at or time.monotonic()
        until = asked_at + self._drain_grace_s
        self._jobs.give_back_unknown()
        while not self._work.is_idle and time.monotonic() < until:
            with self._work.pieces.at_work():
                self._work.advance()
        self._jobs.give_back(self._work.give_back())
        self._work.finish()
        while not self._jobs.write_endings() and time.monotonic() < until:
            time.sleep(_WRITE_AGAIN_S)

    def _take(self) -> Sequence[Record]:
        """Claim what there is room for; where nothing is in hand, wait for it."""
        self._jobs.write_endings()
        if self._is_suspended:
            if self._work.is_idle:
                self._pause()
            return self._jobs.claim_again()
        if self._work.is_idle and not self._jobs.has_unanswered_claim:
            self._note(WorkerState.IDLE)  # from here on, not only once nothing came
            with self._interruptible():
                self._selection.wait(_QUIET_S if self._work.wants_time else _CHORES_S)
        return self._selection.claim(self._work.room())

    def _advance_models(self) -> None:
        # a model's first forward may take a while: with no job in hand a signal ends it
        with self._interruptible() if self._work.is_idle else nullcontext():
            self._selection.advance_models(self._work.models_in_use)

    def _do_chores(self) -> None:
        """Look after RQ's suspension and maintenance, now and then."""
        if time.monotonic() < self._chores_at:
            return
        self._chores_at = time.monotonic() + _CHORES_S
        was_suspended = self._is_suspended
        self._is_suspended = bool(is_suspended(self.connection, self))
        if self._is_suspended != was_suspended:
            state = WorkerStatus.SUSPENDED if self._is_suspended else WorkerStatus.IDLE
            self.set_state(state)
            logger.warning("event=%s worker=%s", state.value, self.name)
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()  # type: ignore[no-untyped-call]

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Go on with what is in hand although no more can be taken: Redis is away, or refuses."""
        try:
            yield
        except RedisError as error:
            if not is_unavailable(error):
                raise
            if self._work.is_idle:
                self._pause()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """From here on a signal raises StopRequested at once, until the end of the block."""
        self._is_interruptible = True
        try:
            if self._stop_requested:  # a moment ago
                raise StopRequested
            yield
        finally:
            self._is_interruptible = False

    def _pause(self) -> None:
        with self._interruptible():
            time.sleep(_PAUSE_S)

    def _note(self, state: WorkerState) -> None:
        if state is not self._noted:
            self._noted = state
            self._heartbeat.note(state)

    def _salvage(self) -> None:
        self._work.salvage(_SALVAGE_S)
        self._jobs.write_endings()
