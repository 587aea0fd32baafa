"""Answer a request for images with a stream of events: while they are painted, and when they are.

An error within the stream is its last frame, in the envelope of all errors: the status has gone out
by then. Whose client leaves is canceled, as without a stream.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from fastapi import Request, Response
from redis.exceptions import RedisError

from service import sse
from service.dependencies import Parts, Preference
from service.error_handlers import internal_error
from service.errors import (
    EndDelayedError,
    ErrorEnvelope,
    ServiceError,
    StreamStoppedError,
    UnavailableError,
    lost_error,
)
from service.image_items import encoded_image
from service.job_objects import end_error
from service.json_response import with_images
from service.redis_health import unavailable
from service.schemas.image_events import ImageEvents
from service.submitting import NewJob, Submitted, submit
from worker.contract.events import Event
from worker.contract.jobs import ImageResult
from worker.contract.record import Record
from worker.contract.redis_refusals import refusal_of

logger = logging.getLogger(__name__)


async def stream(
    new: NewJob, parts: Parts, preference: Preference, request: Request, image_events: ImageEvents
) -> Response:
    """Submit the job and tell what happens to it; what it raises comes before the stream begins."""
    awaited = replace(preference, is_async=False, wait_s=None)  # a stream is to be waited for
    submitted = await submit(new, parts, awaited, request)
    followed = parts.events.follow(submitted.job_id, None)
    try:
        await anext(followed)  # takes its place
    except UnavailableError:
        parts.job_changes.leave(submitted.job_id, submitted.waiter)
        raise
    frames = _frames(submitted, followed, parts, image_events)
    await anext(frames)  # is begun: from here on it sees to its end
    response = sse.EventStream(frames)
    response.headers.update(submitted.headers)
    return response


async def _frames(
    submitted: Submitted,
    followed: AsyncGenerator[Event | None],
    parts: Parts,
    image_events: ImageEvents,
) -> AsyncGenerator[bytes]:
    is_over = False
    try:
        async with aclosing(followed):
            yield b""
            async for frame in _until_the_end(submitted, followed, parts, image_events):
                yield frame
        is_over = True
    finally:
        if not is_over and not parts.events.is_stopping:
            parts.metrics.jobs.client_disconnects.labels(image_events.job.task.value).inc()
            parts.job_changes.leave(submitted.job_id, submitted.waiter)


async def _until_the_end(
    submitted: Submitted,
    followed: AsyncIterator[Event | None],
    parts: Parts,
    image_events: ImageEvents,
) -> AsyncIterator[bytes]:
    """All frames, the last of which may be an error."""
    job_id, record = submitted.job_id, submitted.record
    try:
        if record is None:
            async for event in followed:
                if event is None:
                    _check_jobs_end(job_id, parts)
                    yield sse.KEEP_ALIVE
                elif (body := image_events.from_event(event)) is not None:
                    yield sse.frame(body.type, body)
            record = await _ended(job_id, parts)
        result = _result(record)
        for index, image in enumerate(result.images):
            encoded = await encoded_image(image, record, parts)
            completed = image_events.completed(record, result, index)
            for part in with_images(sse.frame(completed.type, completed), [encoded]):
                yield part
    except Exception as error:
        yield _error_frame(error, job_id, image_events)


def _check_jobs_end(job_id: str, parts: Parts) -> None:
    """A silence may be all there is to hear while Redis takes no writes."""
    refusal = parts.redis_health.no_job_ends
    if refusal is not None:
        parts.job_changes.keep(job_id)
        raise EndDelayedError(job_id, refusal.value)


async def _ended(job_id: str, parts: Parts) -> Record:
    record = await parts.jobs.get(job_id)
    if record is None:
        raise lost_error(job_id)
    if not record.state.is_final:
        parts.job_changes.keep(job_id)
        raise StreamStoppedError(job_id)
    return record


def _result(record: Record) -> ImageResult:
    if (error := end_error(record)) is not None:
        raise error
    assert isinstance(record.result, ImageResult), "this is a bug: another task's result"
    return record.result


def _error_frame(error: Exception, job_id: str, image_events: ImageEvents) -> bytes:
    if isinstance(error, ServiceError):
        known = error
    elif isinstance(error, RedisError) and (refusal := refusal_of(error)) is not None:
        known = unavailable(refusal)
    else:
        logger.error("event=stream_failed job=%s", job_id, exc_info=error)
        known = internal_error()
    known.rename("image", image_events.body.start_field)
    return sse.frame("error", ErrorEnvelope(error=known.body))
