"""`/v1/models`: what can be asked for, with its limits and defaults."""

from anyio import to_thread
from fastapi import APIRouter, Response

from models.presets import Preset
from service.dependencies import CurrentParts, Parts
from service.responses import ERRORS, json_response
from service.schemas.models import ModelList, ModelObject
from worker.contract import workers

router = APIRouter(tags=["models"])


@router.get("/v1/models", response_model=None, responses={200: {"model": ModelList}, **ERRORS})
async def list_models(parts: CurrentParts) -> Response:
    """List every model."""
    loaded = await _loaded(parts)
    objects = [_model_object(preset, loaded, parts) for preset in parts.catalog.presets()]
    return json_response(ModelList(data=objects))


@router.get(
    "/v1/models/{model:path}",
    response_model=None,
    responses={200: {"model": ModelObject}, **ERRORS},
)
async def get_model(model: str, parts: CurrentParts) -> Response:
    """Read one model by its name or an alias."""
    preset = parts.catalog.get(model)
    return json_response(_model_object(preset, await _loaded(parts), parts))


async def _loaded(parts: Parts) -> set[str]:
    statuses = await to_thread.run_sync(workers.read_all, parts.blocking_redis)
    return {name for status in statuses if status.state.is_warm for name in status.models}


def _model_object(preset: Preset, loaded: set[str], parts: Parts) -> ModelObject:
    aliases = parts.catalog.aliases(preset)
    return ModelObject.from_preset(preset, aliases, preset.name in loaded, parts.started_at)
