"""What `triptych generate` was asked for, checked as the API checks a request. Free of torch."""

import math
import time
from dataclasses import dataclass

from pydantic import ValidationError

from models.presets import PRESETS
from service.errors import RequestError
from service.schemas.images import ImageRequest
from worker.contract.jobs import ImageJob


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
    preset = PRESETS.get(request.model)
    if preset is None or preset.image_limits is None:
        names = [name for name, each in PRESETS.items() if each.image_limits is not None]
        raise GenerateRequestError(f"model: got {request.model!r}; allowed: {', '.join(names)}")
    fields = {
        "prompt": request.prompt,
        "size": request.size,
        "num_inference_steps": request.num_steps,
        "seed": request.seed,
    }
    try:
        body = ImageRequest.model_validate(fields)
        return body.to_job(preset, preset.image_limits, time.time(), timeout_s=math.inf)
    except RequestError as error:
        raise GenerateRequestError(str(error)) from None
    except ValidationError as error:
        fault = error.errors()[0]
        raise GenerateRequestError(
            f"{fault['loc'][0]}: got {fault['input']!r}: {fault['msg']}"
        ) from None
