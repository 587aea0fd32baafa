"""Submit a job: in a queue, in the run of an equal one, answered by what is kept of one, or, where
its idempotency key came before, not at all: the key's job answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from anyio import to_thread
from fastapi import Request

from service.dependencies import Parts, Preference, caller_of
from service.errors import KeyReusedError, QueueFullError
from worker.contract.jobs import ImageJob, ImageResult, Task
from worker.contract.record import AnyJob, Record
from worker.contract.submission import (
    Answered,
    Attached,
    Joined,
    Queued,
    Reuse,
    Submission,
    Terms,
)

_BRIEFLY_S = 60

_REUSED: Mapping[type, str] = {Answered: "hit", Joined: "shared"}  # else the job has its own run


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is about to be submitted, and whose answers it may have."""

    job: AnyJob
    reuse: Reuse | None


@dataclass(frozen=True, slots=True)
class Submitted:
    """The job that answers a request.

    job_id   its own, or that of the first request with its idempotency key
    task     of both
    waiter   who waits for it: the id of the request's own job
    record   where it is over already, and that is known
    headers  of every answer
    """

    job_id: str
    task: Task
    waiter: str
    record: Record | None
    headers: Mapping[str, str]

    @property
    def is_attached(self) -> bool:
        return self.job_id != self.waiter


async def submit(new: NewJob, parts: Parts, preference: Preference, request: Request) -> Submitted:
    """Submit it for whoever sent the request; raises QueueFullError and KeyReusedError.

    A client that leaves while it waits for the end is to be told to `job_changes.leave`, and one
    that will come back to `job_changes.keep`.
    """
    job = new.job.model_copy(update=_origin(request))
    request.state.job_id = job.id  # for the request's line in the log
    try:
        submission = await _submit(job, _terms(new, parts, preference), parts)
    except (QueueFullError, KeyReusedError) as error:
        await _remove_start(job, parts)
        if isinstance(error, KeyReusedError):
            parts.metrics.jobs.replays.labels("mismatch").inc()
        raise
    if isinstance(submission, Attached):
        outcome = "replayed" if submission.is_over else "attached"
        parts.metrics.jobs.replays.labels(outcome).inc()
        await _remove_start(job, parts)
        request.state.job_id = submission.job_id
        request.state.reuse = "attached"
        headers = {"x-job-id": submission.job_id, "idempotency-replayed": "true"}
        return Submitted(submission.job_id, job.task, job.id, None, headers)
    _count(submission, job, new.reuse, parts)
    reused = _REUSED.get(type(submission))
    if reused is not None:
        request.state.reuse = reused
    headers = {"x-job-id": job.id} | ({} if reused is None else {"x-cache": reused})
    record = submission.record if isinstance(submission, Answered) else None
    return Submitted(job.id, job.task, job.id, record, headers)


def _origin(request: Request) -> dict[str, str | None]:
    """What a job knows of its request."""
    trace = request.state.trace
    return {
        "caller": caller_of(request),
        "request_id": request.state.request_id,
        "traceparent": None if trace is None else trace.traceparent,
        "tracestate": None if trace is None else trace.tracestate,
    }


def _terms(new: NewJob, parts: Parts, preference: Preference) -> Terms:
    settings = parts.settings
    may_be_brief = new.job.task is not Task.IMAGES and preference.key is None
    comes_back = preference.is_async and preference.wait_s is None
    return Terms(
        max_depth=settings.max_queue_depth,
        reuse=new.reuse,
        key=preference.key,
        is_awaited=not preference.is_async,
        # by the thousand a second, as classifications and embeddings come, they would fill Redis
        keep_s=_BRIEFLY_S if may_be_brief and not comes_back else None,
        ttl_s=int(settings.result_ttl_s),
    )


async def _submit(job: AnyJob, terms: Terms, parts: Parts) -> Submission:
    submission = await parts.jobs.submit(job, terms)
    if not isinstance(submission, Answered) or await _is_there(submission.record, parts):
        return submission
    assert terms.reuse is not None, "this is a bug: answered by the cache unasked"
    await parts.jobs.withdraw_answer(job.id, terms.reuse)
    own_run = replace(terms.reuse, reads_cache=False)
    return await parts.jobs.submit(job, replace(terms, reuse=own_run))


def _count(submission: Submission, job: AnyJob, reuse: Reuse | None, parts: Parts) -> None:
    if isinstance(submission, Queued):
        parts.metrics.jobs.enqueued.labels(job.task.value, job.model).inc()
    if reuse is not None:
        result = _REUSED.get(type(submission), "miss")
        parts.metrics.jobs.reuse.labels(job.task.value, result).inc()


async def _is_there(record: Record, parts: Parts) -> bool:
    """Whether the files of a kept result can be fetched, and stay as long as if they were new."""
    result = record.result
    if not isinstance(result, ImageResult):
        return True
    names = [image.file_name for image in result.images]
    return await to_thread.run_sync(lambda: all(map(parts.image_files.touch, names)))


async def _remove_start(job: AnyJob, parts: Parts) -> None:
    if isinstance(job, ImageJob) and job.start is not None:
        await to_thread.run_sync(parts.image_files.remove_start, job.id)
