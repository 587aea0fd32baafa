"""How a request for images is answered: with JSON, with one image itself, or with a stream."""

from anyio import to_thread
from fastapi import Request, Response

from service.accepted_images import wanted_format
from service.dependencies import Parts, Preference
from service.errors import renaming
from service.image_items import encoded_image, inline_items, read_image, url_items
from service.image_jobs import new_image_job
from service.image_stream import stream
from service.json_response import json_response, json_with_images
from service.responses import run
from service.schemas.image_events import EventPrefix, ImageEvents
from service.schemas.image_fields import ImageFields
from service.schemas.images import ImagesResponse
from worker.contract.image_files import format_of
from worker.contract.jobs import ImageJob, ImageResult
from worker.contract.record import Record


async def answer_with_images(
    body: ImageFields, prefix: EventPrefix, request: Request, parts: Parts, preference: Preference
) -> Response:
    """Paint what the body asks for; `prefix` names the events of its stream."""
    image_format = wanted_format(body, request)
    new = await new_image_job(body, request, parts, image_format)
    if body.stream:
        assert isinstance(new.job, ImageJob), "this is a bug: a job of another task"
        return await stream(new, parts, preference, request, ImageEvents(prefix, new.job, body))

    async def respond(record: Record) -> Response:
        result = record.result
        assert isinstance(result, ImageResult), "this is a bug: another task's result"
        if image_format is not None:
            return await image_itself(record, result, parts)
        if body.response_format == "url":
            items = await url_items(record, result, parts, request)
            return json_response(ImagesResponse.from_result(record, result, items, body.end_user))
        images = [await encoded_image(image, record, parts) for image in result.images]
        items = inline_items(result)
        answer = ImagesResponse.from_result(record, result, items, body.end_user)
        return await to_thread.run_sync(json_with_images, answer, images)

    with renaming("image", body.start_field):
        return await run(new, parts, preference, request, respond)


async def image_itself(record: Record, result: ImageResult, parts: Parts) -> Response:
    [image] = result.images
    content = await read_image(image, record, parts)
    media_type = f"image/{format_of(image.file_name)}"
    return Response(content, media_type=media_type, headers={"x-seed": str(image.seed)})
