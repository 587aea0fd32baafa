"""RQ's view of our jobs (2.12): what an entry may carry, and how it is mended.

RQ moves ids and keeps books for `rq info`; what a job is and how it ended stands in the records.
"""

from collections.abc import Callable

from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.utils import now

from worker import tasks
from worker.contract.jobs import JobState, Task
from worker.contract.records import ENTRY_POINT, RQ_RESULT_TTL_S, queue_name
from worker.failures import WorkerError


class RefusedEntryError(WorkerError):
    """Raised when RQ is about to call anything but our one function."""


class EntryPointJob(Job):
    """An RQ job that imports nothing by name: one function, no callbacks, no webhooks.

    The JSON serializer alone does not do this: RQ calls `os.system` out of JSON just as well.
    """

    def refusal(self, queue: Queue) -> str | None:
        """Why this entry must not run; None if it is one of ours."""
        try:
            is_ours = (
                self.func_name == ENTRY_POINT
                and list(self.args) == [self.id]
                and not self.kwargs
                and self.instance is None
            )
        except Exception as error:  # whatever stood in Redis instead of a payload
            return f"unreadable payload: {type(error).__name__}"
        if not is_ours:
            return f"{self.func_name!r} with these arguments is not {ENTRY_POINT}(id)"
        if (
            self._success_callback_name
            or self._failure_callback_name
            or self._stopped_callback_name
        ):
            return "callbacks are not allowed"
        if self.webhooks:
            return "webhooks are not allowed"
        return None if self.origin == queue.name else f"origin {self.origin!r} is not {queue.name}"

    @property
    def func(self) -> Callable[[str], None]:
        if self.func_name != ENTRY_POINT:
            raise RefusedEntryError(f"{self.func_name!r} is not {ENTRY_POINT}")
        return tasks.run

    @property
    def success_callback(self) -> None:
        return None

    @property
    def failure_callback(self) -> None:
        return None

    @property
    def stopped_callback(self) -> None:
        return None

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Send none: RQ's are unsigned and go to any address that stood in Redis."""


def open_queue(redis: Redis, task: Task, queue_class: type[Queue] = Queue) -> Queue:
    return queue_class(
        queue_name(task), connection=redis, job_class=EntryPointJob, serializer=JSONSerializer
    )


def forget_executions(redis: Redis, task: Task, job_id: str) -> None:
    """Take a lost worker's executions of a job out of RQ's books."""
    queue = open_queue(redis, task)
    entry = EntryPointJob(job_id, connection=redis, serializer=JSONSerializer)
    entry.origin = queue.name
    executions = queue.started_job_registry.get_job_and_execution_ids(cleanup=False)
    with redis.pipeline() as pipeline:
        for started_id, execution_id in executions:
            if started_id == job_id:
                Execution(execution_id, job_id, connection=redis).delete(entry, pipeline)
        pipeline.execute()


def close_entry(redis: Redis, job_id: str, state: JobState) -> None:
    """Book a job as its record says it ended, where its worker could not any more."""
    try:
        entry = EntryPointJob.fetch(job_id, connection=redis, serializer=JSONSerializer)
    except NoSuchJobError:
        return
    with redis.pipeline() as pipeline:
        if state is JobState.SUCCEEDED:
            entry.ended_at = now()
            entry._handle_success(RQ_RESULT_TTL_S, pipeline)
            entry.cleanup(RQ_RESULT_TTL_S, pipeline, remove_from_queue=False)
        else:
            entry.set_status(JobStatus.FAILED, pipeline=pipeline)
            entry._handle_failure(state, pipeline)
        pipeline.execute()


def started(redis: Redis, task: Task) -> set[str]:
    """The ids of the jobs that some worker has in RQ's books."""
    registry = open_queue(redis, task).started_job_registry
    return {job_id for job_id, _ in registry.get_job_and_execution_ids(cleanup=False)}


def handed_over(redis: Redis, task: Task) -> list[str]:
    """The ids between queue and worker: for milliseconds, unless a worker died just there."""
    return open_queue(redis, task).intermediate_queue.get_job_ids()
