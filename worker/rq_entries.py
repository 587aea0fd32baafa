"""RQ's view of our jobs (2.12): it keeps books, and nothing that stands in an entry is ever run.

Our loop goes by the records alone. But RQ's maintenance reads the entries of jobs that it takes for
lost, and would import and call what stands there as their callback.
"""

from redis import Redis
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer

from worker.contract.jobs import Task
from worker.contract.record import queue_name


class BookedJob(Job):
    """An RQ job that calls nothing when maintenance fails it."""

    @property
    def failure_callback(self) -> None:
        return None


def open_queue(redis: Redis, task: Task) -> Queue:
    return Queue(queue_name(task), connection=redis, job_class=BookedJob, serializer=JSONSerializer)
