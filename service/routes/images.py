"""`POST /v1/images/…`: OpenAI's routes to text-to-image and to image-to-image."""

from typing import get_args

from fastapi import APIRouter, Request, Response

from service.api_description import component, event_stream, form_component, header_refs
from service.dependencies import CurrentParts, CurrentPreference, Parts, Preference
from service.forms import FORM
from service.image_responses import answer_with_images
from service.request_bodies import JSON, read_body, read_json
from service.responses import ANSWER_HEADERS, answers_with
from service.route_errors import ACCEPT, BODY, FOLLOWERS, IMAGE
from service.schemas.image_edits import ImageEdit, ImageVariation
from service.schemas.image_events import EventPrefix, event_kinds
from service.schemas.images import ImageRequest, ImagesResponse
from worker.contract.jobs import OutputFormat

router = APIRouter(tags=["images"])

_FILE_FIELDS = ("image", "mask", "markup")  # of which the last two are refused by name
_IMAGE: dict[str, object] = {"schema": {"type": "string", "format": "binary"}}


def _answers(prefix: EventPrefix) -> dict[int | str, dict[str, object]]:
    answers = answers_with(ImagesResponse, BODY, IMAGE, ACCEPT, FOLLOWERS)
    images = {f"image/{name}": _IMAGE for name in get_args(OutputFormat)}
    answers[200]["content"] = {**event_stream(event_kinds(prefix)), **images}
    answers[200]["headers"] = header_refs(*ANSWER_HEADERS, "x-seed")
    return answers


def _bodies(schema: type[ImageEdit | ImageVariation]) -> dict[str, object]:
    form = form_component(schema, _FILE_FIELDS, schema.STRUCTURED)
    content = {FORM: {"schema": form}, JSON: {"schema": component(schema)}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/v1/images/generations",
    response_model=None,
    responses=_answers("image_generation"),
    openapi_extra={
        "requestBody": {"required": True, "content": {JSON: {"schema": component(ImageRequest)}}}
    },
)
async def create_images(
    request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Paint `n` images of the prompt.

    With `stream` the answer is server-sent events; one that fails ends with an `error`. Where
    `Accept` names an image but not JSON, the answer is the image itself.
    """
    body = await read_json(request, ImageRequest)
    return await answer_with_images(body, "image_generation", request, parts, preference)


@router.post(
    "/v1/images/edits",
    response_model=None,
    responses=_answers("image_edit"),
    openapi_extra=_bodies(ImageEdit),
)
async def edit_image(
    request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Paint `n` images that start from an image, as the prompt says: image-to-image.

    In a form, `loras`, `preview_steps` and `stream_options` are JSON. Answers are as those of
    `/v1/images/generations`.
    """
    return await _answer_edit(ImageEdit, request, parts, preference)


@router.post(
    "/v1/images/variations",
    response_model=None,
    responses=_answers("image_edit"),
    openapi_extra=_bodies(ImageVariation),
)
async def vary_image(
    request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Paint `n` images that start from an image, without words: image-to-image.

    Bodies and answers are as those of `/v1/images/edits`.
    """
    return await _answer_edit(ImageVariation, request, parts, preference)


async def _answer_edit(
    schema: type[ImageEdit | ImageVariation],
    request: Request,
    parts: Parts,
    preference: Preference,
) -> Response:
    body = await read_body(request, schema, _FILE_FIELDS, schema.STRUCTURED)
    return await answer_with_images(body, "image_edit", request, parts, preference)
