"""The routes of text-embeddings-inference, for its clients: `/embed`, `/info` and `/health`.

Thin translations: what is embedded, and how, is `/v1/embeddings`'.
https://github.com/huggingface/text-embeddings-inference
"""

from fastapi import APIRouter, Request, Response

from service.api_description import component
from service.dependencies import CurrentParts, CurrentPreference
from service.errors import renaming
from service.json_response import json_response
from service.request_bodies import JSON
from service.responses import answers_with, run
from service.route_errors import BODY, MODEL, NOT_READY, STORE, errors
from service.routes.health import get_readiness
from service.row_jobs import embed_job
from service.row_responses import vectors_alone
from service.schemas.health import Readiness
from service.schemas.tei import EmbedRequest, EmbedResponse, EndpointInfo
from worker.contract.jobs import Task

router = APIRouter(tags=["tei"])

_BODY = {"requestBody": {"required": True, "content": {JSON: {"schema": component(EmbedRequest)}}}}


@router.post(
    "/embed",
    response_model=None,
    responses=answers_with(EmbedResponse, BODY),
    openapi_extra=_BODY,
)
async def embed(request: Request, parts: CurrentParts, preference: CurrentPreference) -> Response:
    """Embed one text or many with the default model; the answer is the vectors alone."""
    with renaming("input", "inputs"):
        new = await embed_job(None, request, parts)
        return await run(new, parts, preference, request, vectors_alone)


@router.get(
    "/info",
    response_model=None,
    responses={200: {"model": EndpointInfo}, **errors(MODEL, STORE)},
)
async def get_info(parts: CurrentParts) -> Response:
    """Describe the default embedding model, as text-embeddings-inference does."""
    card = await parts.catalog.card(None, Task.EMBEDDINGS)
    return json_response(EndpointInfo.from_card(card, parts.settings))


@router.get(
    "/health",
    response_model=None,
    responses={200: {"model": Readiness}, **errors(NOT_READY, STORE)},
)
async def get_health_as_tei(parts: CurrentParts) -> Response:
    """Say whether all is ready, as `/readyz` does."""
    return await get_readiness(parts)
