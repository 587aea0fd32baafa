"""From the body of a request for images to its job, with the image that it starts from stored."""

from anyio import to_thread
from fastapi import Request

from service.dependencies import Parts, card_of
from service.errors import UnavailableError, disk_full
from service.fingerprints import reuse_of
from service.schemas.image_fields import ImageFields
from service.submitting import NewJob
from worker.contract.image_files import is_disk_full
from worker.contract.jobs import ImageJob, OutputFormat, Task


async def new_image_job(
    body: ImageFields, request: Request, parts: Parts, accepted_format: OutputFormat | None = None
) -> NewJob:
    """Raises RequestError for what the model does not take."""
    card = await card_of(request, parts, body.model, Task.IMAGES)
    assert card.image_limits is not None, f"this is a bug: {card.name} has no limits"
    settings = parts.settings
    job = body.to_job(
        card.name, card.image_limits, parts.now(), settings.job_timeout_s, accepted_format
    )
    start = b""
    if job.start is not None:
        start = await to_thread.run_sync(_store_start, body, job, parts)
    is_determined = body.seed is not None
    return NewJob(job, reuse_of(job, card, request, settings, start) if is_determined else None)


def _store_start(body: ImageFields, job: ImageJob, parts: Parts) -> bytes:
    """Before the job is there to be taken; the janitor removes the file when it is over."""
    content = body.start_content(parts.settings.max_image_bytes)
    try:
        parts.image_files.store_start(content, job.id)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full() from error
        raise UnavailableError("storage", "the start image could not be stored") from error
    return content
