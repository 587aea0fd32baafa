"""RQ's loop (2.12) with our batches in it: one queue, no fork, several jobs at a time.

RQ's traps that shape this file, each with a test:
- `self.execution` is one attribute, so it is set to the job's own before each `perform_job`;
- draining goes through `dequeue_any`, as `pop_job_id` raises on an empty queue;
- one queue only, or jobs stay behind in the intermediate list; our queue class says which of its
  jobs are ours (`job_selection`);
- SimpleWorker sends no heartbeat during a job, so `keep_alive` is for our own thread to call;
- a job timeout is SIGALRM, which would raise in the middle of anything: there is none.
Knows nothing of models and records.
"""

import logging
import os
import threading
from collections.abc import Sequence
from datetime import timedelta
from types import FrameType
from typing import NoReturn

from redis import Redis
from redis.client import Pipeline
from rq import SimpleWorker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.registry import StartedJobRegistry, clean_registries
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from rq.utils import now
from rq.worker.base import WorkerStatus
from rq.worker_registration import clean_worker_registry

from worker.contract.workers import WorkerState
from worker.failures import (
    DeviceLostError,
    JobFailedError,
    JobStoppedError,
    StaleAttemptError,
)
from worker.heartbeat import Heartbeat
from worker.job_selection import JobSelection, selecting_queue
from worker.rq_entries import EntryPointJob, open_queue
from worker.tasks import Batches, current_batch

WORKER_TTL_S = 60  # RQ forgets a silent worker after this and one more minute
_COLD_STOP_PAUSE = timedelta(seconds=1)  # a supervisor and a terminal may both send the signal

logger = logging.getLogger(__name__)


class NoDeathPenalty(BaseDeathPenalty):
    """Deadlines are checked between steps; an alarm could strike anywhere."""

    def setup_death_penalty(self) -> None:
        pass

    def cancel_death_penalty(self) -> None:
        pass


class GpuWorker(SimpleWorker):
    death_penalty_class = NoDeathPenalty
    job_class = EntryPointJob

    def __init__(
        self,
        redis: Redis,
        batches: Batches,
        heartbeat: Heartbeat,
        selection: JobSelection,
        max_jobs: int,
    ) -> None:
        queue_class = selecting_queue(selection)
        super().__init__(
            [open_queue(redis, heartbeat.task, queue_class)],
            queue_class=queue_class,
            name=heartbeat.name,
            connection=redis,
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL_S,
            log_job_description=False,
        )
        self._batches = batches
        self._heartbeat = heartbeat
        self._max_jobs = max_jobs
        self._executions: dict[str, Execution] = {}
        self._executions_lock = threading.Lock()  # the heartbeat's thread reads them
        self._error: BaseException | None = None  # why the job at hand did not succeed

    @property
    def was_asked_to_stop(self) -> bool:
        return self._shutdown_requested_date is not None

    def register_birth(self) -> None:
        """Beats begin after it: RQ takes a name that it already knows for another's."""
        super().register_birth()  # type: ignore[no-untyped-call]
        self._heartbeat.also(self.keep_alive)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Do this job and those that wait behind it as one batch."""
        self._state = WorkerStatus.BUSY  # from here on a signal waits for the batch
        self._heartbeat.note(WorkerState.BUSY)
        entries = self._accepted([job, *self._drain(queue)], queue)
        batch = self._batches.take(list(entries))
        for job_id in entries.keys() - batch.taken.keys():
            self._drop(entries.pop(job_id), queue)
        self._begin(list(entries.values()))
        token = current_batch.set(batch)
        try:
            for job_id, entry in entries.items():
                self.execution = self._executions[job_id]
                self.perform_job(entry, queue)
        finally:
            current_batch.reset(token)
        self.set_state(WorkerStatus.IDLE)
        self._heartbeat.note(WorkerState.IDLE)

    def keep_alive(self) -> None:
        """Renew what RQ knows of this worker and its jobs; called from the heartbeat's thread."""
        ttl_s = WORKER_TTL_S + 60
        with self._executions_lock, self.connection.pipeline() as pipeline:
            self.heartbeat(ttl_s, pipeline=pipeline)
            registry = self.queues[0].started_job_registry
            for execution in self._executions.values():
                execution.heartbeat(registry, ttl_s, pipeline=pipeline)
            pipeline.execute()

    def get_heartbeat_ttl(self, job: Job) -> int:  # noqa: ARG002  # RQ's signature
        return WORKER_TTL_S + 60

    def cleanup_execution(self, job: Job, pipeline: Pipeline) -> None:
        with self._executions_lock:
            self._executions.pop(job.id, None)
        super().cleanup_execution(job, pipeline)

    def handle_exception(self, job: Job, *exc_info: object) -> None:
        """Remember why; log only what our own code has not logged already."""
        error = exc_info[1]
        if isinstance(error, DeviceLostError):
            self._leave_device(error)
        self._error = error if isinstance(error, BaseException) else None
        if not isinstance(error, JobFailedError | JobStoppedError | StaleAttemptError):
            super().handle_exception(job, *exc_info)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: StartedJobRegistry | None = None,
        exc_string: str = "",
    ) -> None:
        """RQ's books: failed, stopped, or nothing where another attempt counts."""
        error, self._error = self._error, None
        if isinstance(error, StaleAttemptError):
            with self.connection.pipeline() as pipeline:
                self.cleanup_execution(job, pipeline)
                pipeline.execute()
            return
        if isinstance(error, JobStoppedError):
            self._stopped_job_id = job.id
        super().handle_job_failure(job, queue, started_job_registry, exc_string)

    def clean_registries(self) -> None:
        """As RQ does, but for the intermediate list: our reaper puts such jobs back instead."""
        for queue in self.queues:
            if queue.acquire_maintenance_lock():
                try:
                    clean_registries(queue)
                    clean_worker_registry(queue)
                except Exception:  # a broken entry of another's must not stop this worker
                    logger.exception("event=maintenance_failed queue=%s", queue.name)
                finally:
                    queue.release_maintenance_lock()  # type: ignore[no-untyped-call]
        self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ declares None alone

    def subscribe(self) -> None:
        """Take no commands over Redis: stopping is for signals, canceling is in the records."""

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self._heartbeat.note(WorkerState.DRAINING)
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def _leave_device(self, error: DeviceLostError) -> NoReturn:
        """End at once: a new process may use the device, and the leases' end frees the jobs."""
        logger.critical("event=device_lost worker=%s reason=%s", self.name, error, exc_info=error)
        try:
            self._heartbeat.stop()  # nobody is to count on this worker any more
        finally:
            os._exit(1)

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A second signal: leave at once; the leases run out and the jobs run elsewhere."""
        first = self._shutdown_requested_date
        if first is not None and now() - first >= _COLD_STOP_PAUSE:
            logger.warning("event=cold_stop worker=%s", self.name)
            os._exit(1)

    def _shutdown(self) -> None:
        """Unlike RQ's, touch no connection: this runs inside a signal handler."""
        self._stop_requested = True  # also where what raises next is caught, as in maintenance
        if self.get_state() != WorkerStatus.BUSY:
            raise StopRequested

    def teardown(self) -> None:
        """A signal may strike just after a job left the queue: it goes back."""
        self._batches.put_back(self.queues[0].intermediate_queue.get_job_ids())
        super().teardown()  # type: ignore[no-untyped-call]

    def _drain(self, queue: Queue) -> list[Job]:
        """What gathered while the device was busy; never raises, or jobs taken here were lost."""
        drained: list[Job] = []
        try:
            while len(drained) < self._max_jobs - 1 and not self._stop_requested:
                found = self.queue_class.dequeue_any(
                    [queue],
                    None,
                    connection=self.connection,
                    job_class=self.job_class,
                    serializer=self.serializer,
                )
                if found is None:
                    break
                drained.append(found[0])
        except Exception:
            logger.exception("event=drain_failed queue=%s num_drained=%d", queue.name, len(drained))
        return drained

    def _accepted(self, jobs: Sequence[Job], queue: Queue) -> dict[str, Job]:
        """By id, without those that are not ours: they fail, and are never run."""
        accepted: dict[str, Job] = {}
        for job in jobs:
            assert isinstance(job, EntryPointJob), "RQ was given the job class: this is a bug"
            reason = job.refusal(queue)
            if reason is None:
                job.redis_server_version = queue.get_redis_server_version()
                accepted[job.id] = job
                continue
            logger.error("event=entry_refused entry=%s reason=%s", job.id, reason)
            job.retries_left = None
            self.handle_job_failure(job, queue, exc_string=f"refused: {reason}")
            queue.intermediate_queue.remove(job.id)
        return accepted

    def _begin(self, jobs: Sequence[Job]) -> None:
        """RQ's `prepare_execution` for all jobs in one round trip."""
        with self._executions_lock, self.connection.pipeline() as pipeline:
            for job in jobs:
                self._executions[job.id] = Execution.create(
                    job, self.get_heartbeat_ttl(job), pipeline=pipeline, worker_name=self.name
                )
            self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
            pipeline.execute()

    def _drop(self, job: Job, queue: Queue) -> None:
        """An entry with nothing to do: its job is final, or another worker has it."""
        queue.intermediate_queue.remove(job.id)
        if self._batches.is_over(job.id):  # not if somebody put it back meanwhile
            job.delete(remove_from_queue=False)
