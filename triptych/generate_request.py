"""What `triptych generate` was asked for, checked as the API checks a request. Free of torch."""

import math
import time
from dataclasses import dataclass

from pydantic import ValidationError

from models.presets import PRESETS, PresetTask
from service.errors import RequestError
from service.schemas.images import ImageRequest
from worker.contract.jobs import ImageJob
from worker.image_limits import preset_limits


class GenerateRequestError(Exception):
    """Raised for a request that the preset cannot fulfil; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """None leaves a choice to the preset, or to chance for the seed."""

    prompt: str
    model: str
    size: str | None
    num_steps: int | None
    seed: int | None


def to_job(request: GenerateRequest) -> ImageJob:
    names = [name for name, each in PRESETS.items() if each.task is PresetTask.TEXT_TO_IMAGE]
    if request.model not in names:
        raise GenerateRequestError(f"model: got {request.model!r}; allowed: {', '.join(names)}")
    fields = {
        "prompt": request.prompt,
        "size": request.size,
        "num_inference_steps": request.num_steps,
        "seed": request.seed,
    }
    try:
        body = ImageRequest.model_validate(fields)
        return body.to_job(request.model, preset_limits(request.model), time.time(), math.inf)
    except RequestError as error:
        raise GenerateRequestError(str(error)) from None
    except ValidationError as error:
        fault = error.errors()[0]
        raise GenerateRequestError(
            f"{fault['loc'][0]}: got {fault['input']!r}: {fault['msg']}"
        ) from None
