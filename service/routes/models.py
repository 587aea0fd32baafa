"""`/v1/models`: what can be asked for, with its limits and defaults."""

from fastapi import APIRouter, Response

from service.dependencies import CurrentParts
from service.json_response import json_response
from service.route_errors import STORE, UNKNOWN_MODEL, errors
from service.schemas.models import ModelList, ModelObject

router = APIRouter(tags=["models"])


@router.get(
    "/v1/models", response_model=None, responses={200: {"model": ModelList}, **errors(STORE)}
)
async def list_models(parts: CurrentParts) -> Response:
    """List every model that a worker serves, or is loading."""
    models = await parts.catalog.models()
    objects = [ModelObject.from_model(model, parts.started_at) for model in models.all]
    return json_response(ModelList(data=objects))


@router.get(
    "/v1/models/{model:path}",
    response_model=None,
    responses={200: {"model": ModelObject}, **errors(UNKNOWN_MODEL, STORE)},
)
async def get_model(model: str, parts: CurrentParts) -> Response:
    """Read one model by its name or an alias; a classifier with its labels."""
    found = await parts.catalog.model(model)
    return json_response(ModelObject.from_model(found, parts.started_at, with_labels=True))
