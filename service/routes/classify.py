"""`POST /v1/classify`: images as JSON or as uploaded files; both kinds of body, one answer."""

import json
from collections.abc import Callable, Mapping
from typing import TypeVar, get_args

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from service.dependencies import CurrentParts, CurrentPreference, Parts
from service.error_handlers import body_error, json_error, unsupported_media_type
from service.errors import RequestError
from service.fingerprints import reuse_of
from service.json_response import json_response
from service.responses import answers_with, run
from service.schemas.classify import (
    ClassifyFields,
    ClassifyRequest,
    ClassifyResponse,
    Upload,
    check_count,
    upload_of,
)
from service.schemas.encoded_images import ImageBytes
from service.settings import ServiceSettings
from service.submitting import NewJob
from worker.contract.jobs import ClassifyResult, Priority, Task
from worker.contract.record import Record

router = APIRouter(tags=["classify"])

_JSON, _FORM = "application/json", "multipart/form-data"
_FILE_FIELDS = ("file", "image")
_QUICK_BYTES = 256 * 1024  # a millisecond's work, of which a hop to a thread would add a tenth
_MAX_FIELD_BYTES = 1024  # of a text field of a form: a model's name or a number

T = TypeVar("T")

_FORM_SCHEMA: dict[str, object] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "image files, repeatable; `image` is an alias",
        },
        "model": {"type": "string"},
        "top_k": {"type": "integer", "minimum": 1},
        "priority": {"type": "string", "enum": list(get_args(Priority))},
        "user": {"type": "string", "description": "accepted and ignored"},
    },
}


@router.post(
    "/v1/classify",
    response_model=None,
    responses=answers_with(ClassifyResponse),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {"schema": ClassifyRequest.model_json_schema()},
                _FORM: {"schema": _FORM_SCHEMA},
            },
        }
    },
)
async def create_classification(
    request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Name what is in each image: the `top_k` best labels with their probabilities."""
    new = await _read_job(request, parts)

    async def respond(record: Record) -> Response:
        assert isinstance(record.result, ClassifyResult), "this is a bug: another task's result"
        return json_response(ClassifyResponse.from_result(record, record.result))

    return await run(new, parts, preference, request, respond)


async def _read_job(request: Request, parts: Parts) -> NewJob:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == _FORM:
        upload = await _from_form(request, parts.settings)
    elif content_type == _JSON:
        body = await request.body()
        upload = await _run(len(body), lambda: _from_json(body, parts.settings))
    else:
        got = request.headers.get("content-type")
        raise unsupported_media_type(got, f"{_JSON}, {_FORM}")
    card = await parts.catalog.card(upload.model, Task.CLASSIFY)
    settings = parts.settings

    def new_job() -> NewJob:
        job = upload.to_job(card, settings.max_image_bytes, parts.now(), settings.job_timeout_s)
        return NewJob(job, reuse_of(job, card, request, settings))

    return await _run(upload.num_bytes, new_job)


async def _run(num_bytes: int, work: Callable[[], T]) -> T:
    """Work through so many bytes of images, in a thread where other requests would notice."""
    return work() if num_bytes <= _QUICK_BYTES else await to_thread.run_sync(work)


def _from_json(body: bytes, settings: ServiceSettings) -> Upload:
    try:
        content = json.loads(body)
        request = ClassifyRequest.model_validate(content)
    except ValidationError as error:
        raise json_error(error) from error
    except (ValueError, RecursionError) as error:
        raise body_error(error) from error
    if not isinstance(request.input, str):
        check_count("input", request.input, settings.max_classify_images)
    return upload_of(request)


async def _from_form(request: Request, settings: ServiceSettings) -> Upload:
    max_images = settings.max_classify_images
    async with request.form(max_part_size=_MAX_FIELD_BYTES) as form:
        images = await _files(form, max_images)
        try:
            fields = ClassifyFields.model_validate(_text_fields(form))
        except ValidationError as error:
            raise json_error(error) from error
    return Upload(tuple(images), fields.model, fields.top_k, fields.priority)


async def _files(form: FormData, max_images: int) -> list[ImageBytes]:
    files = [item for name, item in form.multi_items() if name in _FILE_FIELDS]
    check_count("file", files, max_images)
    images = []
    for index, item in enumerate(files):
        if not isinstance(item, UploadFile):
            raise RequestError(f"file[{index}]", f"file[{index}]: got text; allowed: a file")
        images.append(ImageBytes(f"file[{index}]", await item.read()))
    return images


def _text_fields(form: FormData) -> Mapping[str, object]:
    fields: dict[str, object] = {}
    for name, item in form.multi_items():
        if isinstance(item, UploadFile) and name in ClassifyFields.model_fields:
            raise RequestError(name, f"{name}: got a file; allowed: text")
        if name not in _FILE_FIELDS:
            fields[name] = item
    return fields
