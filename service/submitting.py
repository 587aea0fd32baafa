"""Submit a job: in a queue, in the run of an equal one, or answered by what is kept of one."""

from dataclasses import dataclass, replace

from anyio import to_thread

from service.dependencies import Parts
from service.errors import QueueFullError
from worker.contract.jobs import ImageResult
from worker.contract.record import AnyJob, Record
from worker.contract.submission import Answered, Joined, Queued, Reuse

REUSED: dict[type, str] = {Answered: "hit", Joined: "shared"}  # else the job has its own run


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is about to be submitted, and whose answers it may have."""

    job: AnyJob
    reuse: Reuse | None


async def submit(new: NewJob, parts: Parts, keep_s: int | None) -> Queued | Joined | Answered:
    job, reuse = new.job, new.reuse
    try:
        submitted = await parts.jobs.submit(job, reuse, keep_s)
        if isinstance(submitted, Answered) and not await _is_there(submitted.record, parts):
            assert reuse is not None, "this is a bug: answered by the cache unasked"
            await parts.jobs.withdraw_answer(job.id, reuse)
            submitted = await parts.jobs.submit(job, replace(reuse, reads_cache=False), keep_s)
    except QueueFullError:
        parts.metrics.jobs.rejections.labels(job.task.value, "queue_full").inc()
        raise
    if isinstance(submitted, Queued):
        parts.metrics.jobs.enqueued.labels(job.task.value, job.model).inc()
    if reuse is not None:
        result = REUSED.get(type(submitted), "miss")
        parts.metrics.jobs.reuse.labels(job.task.value, result).inc()
    return submitted


async def _is_there(record: Record, parts: Parts) -> bool:
    """Whether the files of a kept result can be fetched, and stay as long as if they were new."""
    result = record.result
    if not isinstance(result, ImageResult):
        return True
    names = [image.file_name for image in result.images]
    return await to_thread.run_sync(lambda: all(map(parts.image_files.touch, names)))
