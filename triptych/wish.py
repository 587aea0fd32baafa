"""What `triptych generate` was asked for, checked as the API checks a request. Free of torch."""

import math
import time
from dataclasses import dataclass

from pydantic import ValidationError

from models.presets import PRESETS
from service.errors import RequestError
from service.schemas.images import ImageRequest
from worker.contract.jobs import ImageJob


class WishError(Exception):
    """Raised for a wish that the preset cannot fulfil; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Wish:
    """None leaves a choice to the preset, or to chance for the seed."""

    prompt: str
    model: str
    size: str | None
    num_steps: int | None
    seed: int | None


def to_job(wish: Wish) -> ImageJob:
    preset = PRESETS.get(wish.model)
    if preset is None or preset.image_limits is None:
        painters = [name for name, each in PRESETS.items() if each.image_limits is not None]
        raise WishError(f"model: got {wish.model!r}; allowed: {', '.join(painters)}")
    fields = {
        "prompt": wish.prompt,
        "size": wish.size,
        "num_inference_steps": wish.num_steps,
        "seed": wish.seed,
    }
    try:
        request = ImageRequest.model_validate(fields)
        return request.to_job(preset, preset.image_limits, time.time(), timeout_s=math.inf)
    except RequestError as error:
        raise WishError(str(error)) from None
    except ValidationError as error:
        fault = error.errors()[0]
        raise WishError(f"{fault['loc'][0]}: got {fault['input']!r}: {fault['msg']}") from None
