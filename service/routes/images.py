"""`POST /v1/images/generations`: OpenAI's route to text-to-image."""

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from service.dependencies import CurrentParts, CurrentPreference, Parts
from service.errors import QueueFullError, UnavailableError
from service.responses import ERRORS, inline_items, run, url_items
from service.schemas.fields import ResponseBody
from service.schemas.images import ImageRequest, ImagesResponse
from service.schemas.jobs import JobObject
from worker.contract.jobs import ImageResult, Task
from worker.contract.records import Record

router = APIRouter(tags=["images"])


@router.post(
    "/v1/images/generations",
    response_model=None,
    responses={200: {"model": ImagesResponse}, 202: {"model": JobObject}, **ERRORS},
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
    if body.image is not None:
        await to_thread.run_sync(_store_start, body, job.id, parts)

    async def respond(record: Record) -> ResponseBody:
        result = record.result
        assert isinstance(result, ImageResult), "this is a bug: another task's result"
        if body.response_format == "url":
            items = url_items(result, parts, request)
        else:
            items = await inline_items(record, result, parts)
        return ImagesResponse.from_result(record, result, items, body.safety_identifier)

    try:
        return await run(job, parts, preference, request, respond)
    except QueueFullError:
        await to_thread.run_sync(parts.image_files.remove_start, job.id)
        raise


def _store_start(body: ImageRequest, job_id: str, parts: Parts) -> None:
    """Before the job is there to be taken; `start_images` removes the file when it is over."""
    content = body.start_image(parts.settings.max_image_bytes)
    try:
        parts.image_files.store_start(content, job_id)
    except OSError as error:
        raise UnavailableError("storage", "the start image could not be stored") from error
