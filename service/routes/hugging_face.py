"""The routes by which Hugging Face's `InferenceClient` calls a server, for the tasks served here.

Its user names a model by its URL, `/models/{model}`, and the model's task says what the body is; or
the service by its own URL, where the body shows which default model is meant. Thin translations.
https://github.com/huggingface/huggingface_hub/blob/v2.4.0/src/huggingface_hub/inference
"""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter, Request, Response

from service.accepted_images import wanted_format
from service.api_description import component
from service.dependencies import CurrentParts, CurrentPreference, Parts, Preference
from service.errors import RequestError, renaming, shown
from service.image_jobs import new_image_job
from service.image_responses import image_itself
from service.json_response import json_response
from service.long_work import work_through
from service.request_bodies import (
    JSON,
    from_json,
    media_type_of,
    parsed,
    read_json,
    validated,
)
from service.responses import answers_with, run
from service.route_errors import ACCEPT, BODY, IMAGE, MODEL, STORE, errors
from service.row_jobs import classify_job, embed_job
from service.row_responses import vectors_alone
from service.schemas.classify import (
    ClassifyOptions,
    HuggingFaceRequest,
    Upload,
    image_param,
    images_of,
)
from service.schemas.encoded_images import IMAGE_TYPES, ImageBytes
from service.schemas.health import Health
from service.schemas.hugging_face import InferenceResponse, LabelScores, PaintRequest
from service.schemas.images import ImageRequest
from service.schemas.tei import EmbedRequest, EmbedResponse, EndpointInfo
from worker.contract.jobs import ClassifyResult, ImageResult, Task
from worker.contract.record import Record

router = APIRouter(tags=["hugging_face"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_SCHEMAS = [component(schema) for schema in (EmbedRequest, HuggingFaceRequest, PaintRequest)]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"anyOf": _SCHEMAS}},
            **dict.fromkeys(IMAGE_TYPES, _BINARY),
        },
    }
}
_EMBED_BODY = {
    "requestBody": {"required": True, "content": {JSON: {"schema": component(EmbedRequest)}}}
}
_ANSWERS = answers_with(InferenceResponse, BODY, IMAGE, ACCEPT)
_ANSWERS[200]["content"] = dict.fromkeys(("image/png", "image/jpeg", "image/webp"), _BINARY)


@router.post("/models/{model:path}", response_model=None, responses=_ANSWERS, openapi_extra=_BODY)
async def infer(
    model: str, request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Run a model: its task says what the body is, and what is answered.

    Text-to-image answers with the image, image classification with labels and scores, feature
    extraction with the vectors.
    """
    task = (await parts.catalog.model(model)).task
    return await _RUN[task](model, request, parts, preference)


@router.post("/", response_model=None, responses=_ANSWERS, openapi_extra=_BODY)
async def infer_by_default(
    request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Run a default model: the body and `Accept` show of which task.

    What is no JSON is an image to classify, as is JSON with `parameters`; JSON beside an `Accept`
    of images is a prompt; else it is text to embed.
    """
    return await _RUN[await _task_meant(request)](None, request, parts, preference)


@router.post(
    "/pipeline/feature-extraction/{model:path}",
    response_model=None,
    responses=answers_with(EmbedResponse, BODY),
    openapi_extra=_EMBED_BODY,
)
async def extract_features(
    model: str, request: Request, parts: CurrentParts, preference: CurrentPreference
) -> Response:
    """Embed as clients before huggingface_hub 0.28 ask for it, by `HF_INFERENCE_ENDPOINT`."""
    return await _embed(model, request, parts, preference)


@router.get(
    "/models/{model:path}/info",
    response_model=None,
    responses={200: {"model": EndpointInfo}, **errors(MODEL, STORE)},
)
async def get_model_info(model: str, parts: CurrentParts) -> Response:
    """Describe a model as an inference endpoint does."""
    task = (await parts.catalog.model(model)).task
    card = await parts.catalog.card(model, task)
    return json_response(EndpointInfo.from_card(card, parts.settings))


@router.get(
    "/models/{model:path}/health",
    response_model=None,
    responses={200: {"model": Health}, **errors(MODEL, STORE)},
)
async def get_model_health(model: str, parts: CurrentParts) -> Response:
    """Say whether a model takes requests."""
    task = (await parts.catalog.model(model)).task
    await parts.catalog.card(model, task)
    return json_response(Health())


async def _task_meant(request: Request) -> Task:
    if media_type_of(request) != JSON:
        return Task.CLASSIFY
    if request.headers.get("accept", "").startswith("image/"):
        return Task.IMAGES
    body = await request.body()
    content = await work_through(len(body), lambda: parsed(body))
    has_parameters = isinstance(content, dict) and "parameters" in content
    return Task.CLASSIFY if has_parameters else Task.EMBEDDINGS


async def _paint(
    model: str | None, request: Request, parts: Parts, preference: Preference
) -> Response:
    theirs = await read_json(request, PaintRequest)
    with renaming(theirs.field, "inputs"):
        body = validated(theirs.in_our_words(model), ImageRequest)
        # most clients name no format, and expect an image all the same
        image_format = wanted_format(body, request) or body.output_format or "png"
        new = await new_image_job(body, request, parts, image_format)

        async def respond(record: Record) -> Response:
            assert isinstance(record.result, ImageResult), "this is a bug: another task's result"
            return await image_itself(record, record.result, parts)

        return await run(new, parts, preference, request, respond)


async def _classify(
    model: str | None, request: Request, parts: Parts, preference: Preference
) -> Response:
    async def respond(record: Record) -> Response:
        assert isinstance(record.result, ClassifyResult), "this is a bug: another task's result"
        return json_response(LabelScores.from_result(record.result))

    body = await request.body()
    to_upload = _from_json if media_type_of(request) == JSON else _from_bytes
    with renaming("input", "inputs"):
        upload = await work_through(len(body), lambda: to_upload(body, model))
        new = await classify_job(upload, request, parts)
        return await run(new, parts, preference, request, respond)


async def _embed(
    model: str | None, request: Request, parts: Parts, preference: Preference
) -> Response:
    with renaming("input", "inputs"):
        new = await embed_job(model, request, parts)
        return await run(new, parts, preference, request, vectors_alone)


def _from_json(body: bytes, model: str | None) -> Upload:
    theirs = from_json(body, HuggingFaceRequest)
    if not isinstance(theirs.inputs, str):
        message = f"inputs: got {shown(theirs.inputs)}; allowed: an image in base64"
        raise RequestError("inputs", message)
    if theirs.model is not None:
        raise RequestError("model", "model: given in the body; allowed: in the URL")
    options = theirs.options.model_copy(update={"model": model})
    return Upload(images_of("inputs", theirs.inputs, max_images=1), options)


def _from_bytes(body: bytes, model: str | None) -> Upload:
    return Upload((ImageBytes(image_param(0), body),), ClassifyOptions(model=model))


_RUN: Mapping[Task, Callable[[str | None, Request, Parts, Preference], Awaitable[Response]]] = {
    Task.IMAGES: _paint,
    Task.CLASSIFY: _classify,
    Task.EMBEDDINGS: _embed,
}
