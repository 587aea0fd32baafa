"""`POST /v1/images/generations`: OpenAI's route to text-to-image."""

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from service.dependencies import CurrentParts, CurrentPreference, Parts
from service.errors import QueueFullError, UnavailableError, disk_full
from service.fingerprints import reuse_of
from service.image_items import inline_items, url_items
from service.json_response import json_response
from service.responses import answers_with, run
from service.schemas.images import ImageRequest, ImagesResponse
from service.submitting import NewJob
from worker.contract.image_files import is_disk_full
from worker.contract.jobs import ImageResult, Task
from worker.contract.record import Record

router = APIRouter(tags=["images"])


@router.post(
    "/v1/images/generations",
    response_model=None,
    responses=answers_with(ImagesResponse),
)
async def create_images(
    body: ImageRequest, request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Paint `n` images of the prompt.

    `Prefer: respond-async` answers 202 with the job at once, `Prefer: wait=N` bounds the wait.
    """
    card = await parts.catalog.card(body.model, Task.IMAGES)
    assert card.image_limits is not None, f"this is a bug: {card.name} has no limits"
    job = body.to_job(card.name, card.image_limits, parts.now(), parts.settings.job_timeout_s)
    start = b""
    if body.image is not None:
        start = await to_thread.run_sync(_store_start, body, job.id, parts)
    is_determined = body.seed is not None
    reuse = reuse_of(job, card, request, parts.settings, start) if is_determined else None

    async def respond(record: Record) -> Response:
        result = record.result
        assert isinstance(result, ImageResult), "this is a bug: another task's result"
        if body.response_format == "url":
            items = url_items(result, parts, request)
        else:
            items = await inline_items(record, result, parts)
        return json_response(
            ImagesResponse.from_result(record, result, items, body.safety_identifier)
        )

    try:
        return await run(NewJob(job, reuse), parts, preference, request, respond)
    except QueueFullError:
        await to_thread.run_sync(parts.image_files.remove_start, job.id)
        raise


def _store_start(body: ImageRequest, job_id: str, parts: Parts) -> bytes:
    """Before the job is there to be taken; the janitor removes the file when it is over."""
    content = body.start_image(parts.settings.max_image_bytes)
    try:
        parts.image_files.store_start(content, job_id)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full() from error
        raise UnavailableError("storage", "the start image could not be stored") from error
    return content
