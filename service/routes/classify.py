"""`POST /v1/classify`: images in JSON, as uploaded files, or as the body itself; one answer."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api_description import component
from service.dependencies import CurrentParts, CurrentPreference, Parts
from service.error_handlers import unsupported_media_type
from service.errors import RequestError, shown_name
from service.forms import FORM, read_form
from service.json_response import json_in_rows
from service.long_work import work_through
from service.request_bodies import JSON, media_type_of, parsed, validated
from service.responses import answers_with, run
from service.route_errors import BODY, IMAGE
from service.row_jobs import classify_job, upload_of
from service.row_responses import answer_bytes
from service.schemas.classify import (
    ClassifyOptions,
    ClassifyRequest,
    ClassifyResponse,
    HuggingFaceRequest,
    Upload,
    check_count,
    image_param,
)
from service.schemas.encoded_images import IMAGE_TYPES, ImageBytes
from worker.contract.jobs import ClassifyResult
from worker.contract.record import Record

router = APIRouter(tags=["classify"])

_FILE_FIELDS = ("file", "image")


def _text_options() -> Mapping[str, dict[str, Any]]:
    """The options as forms and queries have them, which have no null."""
    properties = ClassifyOptions.model_json_schema()["properties"]
    return {
        name: {
            "description": schema["description"],
            **kind.get("oneOf", [kind])[-1],
        }
        for name, schema in properties.items()
        for kind in schema["anyOf"][:1]
    }


_IMAGE_SCHEMA = {"type": "string", "format": "binary"}
_FILES_SCHEMA = {
    "type": "array",
    "items": _IMAGE_SCHEMA,
    "minItems": 1,
    "description": "image files, repeatable; `image` is another name for `file`",
}
_FORM_SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        **dict.fromkeys(_FILE_FIELDS, _FILES_SCHEMA),
        **_text_options(),
    },
    "additionalProperties": False,
}
_QUERY = [
    {
        "name": name,
        "in": "query",
        "description": f"where the body is an image: {schema['description']}",
        "schema": {key: value for key, value in schema.items() if key != "description"},
    }
    for name, schema in _text_options().items()
]


@router.post(
    "/v1/classify",
    response_model=None,
    responses=answers_with(ClassifyResponse, BODY, IMAGE),
    openapi_extra={
        "parameters": _QUERY,
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": {"oneOf": [component(ClassifyRequest), component(HuggingFaceRequest)]}
                },
                FORM: {"schema": _FORM_SCHEMA},
                **{media_type: {"schema": _IMAGE_SCHEMA} for media_type in IMAGE_TYPES},
            },
        },
    },
)
async def create_classification(
    request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Name what is in each image: the `top_k` best labels with their scores.

    The body is JSON, a form with files, or one image, whose options are in the query:

        curl :8000/v1/classify -F file=@one.png -F file=@other.jpg -F top_k=3
        curl ":8000/v1/classify?top_k=3" -H "content-type: image/png" --data-binary @one.png

    All images are classified or none: one that cannot be is an error that names it, `input[2]`.
    They are turned upright as their EXIF says, put on white, and resized and normalized as the
    model's own preprocessing does.
    """
    new = await classify_job(await _read_upload(request, parts), request, parts)

    async def respond(record: Record) -> Response:
        result = record.result
        assert isinstance(result, ClassifyResult), "this is a bug: another task's result"
        return await work_through(
            answer_bytes(result),
            lambda: json_in_rows(ClassifyResponse.from_result(record, result)),
        )

    return await run(new, parts, preference, request, respond)


async def _read_upload(request: Request, parts: Parts) -> Upload:
    media_type = media_type_of(request)
    if media_type in IMAGE_TYPES:
        return await _from_bytes(request)
    for name in request.query_params:
        message = f"{shown_name(name)}: got it in the query; allowed there: only beside an image"
        raise RequestError(shown_name(name), f"{message} that is the whole body")
    max_images = parts.settings.max_classify_images
    if media_type == FORM:
        return await _from_form(request, max_images)
    if media_type == JSON:
        body = await request.body()
        return await work_through(len(body), lambda: upload_of(parsed(body), max_images))
    got = request.headers.get("content-type")
    raise unsupported_media_type(got, ", ".join((JSON, FORM, *IMAGE_TYPES)))


async def _from_bytes(request: Request) -> Upload:
    query = {name: request.query_params.getlist(name) for name in request.query_params}
    fields = {name: values if len(values) > 1 else values[0] for name, values in query.items()}
    options = validated(fields, ClassifyOptions, strict=False)
    return Upload((ImageBytes(image_param(0), await request.body()),), options)


async def _from_form(request: Request, max_images: int) -> Upload:
    form = await read_form(request, _FILE_FIELDS)
    for name in _FILE_FIELDS:
        if name in form.fields:
            raise RequestError(name, f"{name}: got text; allowed: a file")
    if len(form.files) > 1:  # a form's order is lost, and with it which is which
        raise RequestError("image", "image: given beside file; allowed: files of one name")
    files = next(iter(form.files.values()), ())
    check_count("file", files, max_images)
    images = tuple(ImageBytes(image_param(i), content) for i, content in enumerate(files))
    return Upload(images, validated(form.fields, ClassifyOptions, strict=False))
