"""What a model's limits make of the fields of an image request: defaults filled in, or a 400.

Nothing is rounded or cut to fit: what a model does not take is refused, with what it takes.
"""

import re
import secrets
from collections.abc import Sequence

from service.errors import RequestError, shown
from worker.contract.jobs import LoraScale, NegativePrompt, Quality
from worker.contract.model_cards import MAX_ASPECT, ImageLimits

MAX_SEED = 2**63 - 1
MAX_PREVIEWS = 3  # of an image, as OpenAI's partial images
_RANDOM_SEEDS = 2**32  # small enough for the numbers of every JSON reader
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")

# The number of steps of a tier, as a multiple of the model's default.
_STEPS_FACTORS: dict[Quality, float] = {"low": 0.5, "medium": 1, "high": 2, "xhigh": 3, "max": 4}
_QUALITIES: dict[str, Quality] = {
    "auto": "medium",
    "standard": "medium",
    "hd": "high",
    **{quality: quality for quality in _STEPS_FACTORS},
}


def num_images_of(n: int | None, limits: ImageLimits) -> int:
    return 1 if n is None else _at_most("n", n, limits.max_images)


def _at_most(param: str, value: int, maximum: int) -> int:
    if value > maximum:
        raise RequestError(param, f"{param}: got {shown(value)}; allowed: 1 to {maximum}")
    return value


def seeds_of(seed: int | None, num_images: int) -> tuple[int, ...]:
    first = secrets.randbelow(_RANDOM_SEEDS) if seed is None else seed
    return tuple((first + i) & MAX_SEED for i in range(num_images))


def num_steps_of(num_steps: int | None, quality: str | None, limits: ImageLimits) -> int:
    """Explicit steps win over the tier."""
    if num_steps is None:
        return _tier_steps(limits)[_QUALITIES[quality or "auto"]]
    return _at_most("num_inference_steps", num_steps, limits.max_num_steps)


def preview_steps_of(steps: Sequence[int] | None, num_steps: int) -> tuple[int, ...]:
    """Each is one of the steps, and none is there twice; in the order of the steps."""
    if steps is None:
        return ()
    if len(steps) > MAX_PREVIEWS:
        message = f"preview_steps: got {len(steps)} steps; allowed: at most {MAX_PREVIEWS}"
        raise RequestError("preview_steps", message)
    for index, step in enumerate(steps):
        param = f"preview_steps[{index}]"
        if not 1 <= step <= num_steps:
            raise RequestError(param, f"{param}: got {shown(step)}; allowed: 1 to {num_steps}")
        if step in steps[:index]:
            raise RequestError(param, f"{param}: got {step} again; allowed: once")
    return tuple(sorted(steps))


def size_of(size: str | None, limits: ImageLimits) -> tuple[int, int]:
    """Width and height. Nothing is rounded: a size that does not fit is refused."""
    if size is None or size == "auto":
        return limits.default_width, limits.default_height
    match = _SIZE.fullmatch(size)
    if match is None:
        raise RequestError("size", f"size: got {shown(size)}; allowed: auto or WIDTHxHEIGHT")
    width, height = int(match[1]), int(match[2])
    reason = _size_fault(width, height, limits)
    if reason is not None:
        raise RequestError("size", f"size: got {shown(size)}: {reason}")
    return width, height


def _size_fault(width: int, height: int, limits: ImageLimits) -> str | None:
    for name, side in (("width", width), ("height", height)):
        if side % limits.side_multiple:
            return f"{name} {side} is not a multiple of {limits.side_multiple}"
        if not limits.min_side <= side <= limits.max_side:
            return f"{name} {side} is not in {limits.min_side} to {limits.max_side}"
    if max(width, height) > MAX_ASPECT * min(width, height):
        return f"longer than 1:{MAX_ASPECT}; allowed: 1:{MAX_ASPECT} to {MAX_ASPECT}:1"
    if width * height > limits.max_pixels:
        return f"{width * height} pixels; allowed: at most {limits.max_pixels}"
    return None


def guidance_of(value: float | None, model: str, limits: ImageLimits) -> float | None:
    if value is None:
        return limits.default_guidance_scale
    if limits.max_guidance_scale is None:
        raise RequestError(
            "guidance_scale",
            f"guidance_scale: got {value:g}; allowed: null, for {model} has no guidance",
            "unsupported_parameter",
        )
    if value > limits.max_guidance_scale:
        raise RequestError(
            "guidance_scale",
            f"guidance_scale: got {value:g}; allowed: 0 to {limits.max_guidance_scale:g}",
        )
    return value


def negative_of(
    prompt: str | None, true_cfg_scale: float | None, limits: ImageLimits
) -> NegativePrompt | None:
    """What to steer away from; None for nothing.

    Neither may be without effect: a prompt needs a scale above 1, which has a default, and such a
    scale a prompt. An empty prompt counts where the scale is said; alone it is an empty text field.
    """
    maximum = limits.max_true_cfg_scale
    if true_cfg_scale is not None and true_cfg_scale > maximum:
        raise _true_cfg_fault(true_cfg_scale, f"allowed: 1 to {maximum:g}")
    if not prompt and true_cfg_scale in (None, 1):
        return None
    if prompt is None:
        raise _true_cfg_fault(true_cfg_scale, 'needs negative_prompt, for which "" is allowed')
    if true_cfg_scale == 1:
        reason = f"negative_prompt has no effect at 1; allowed: above 1 to {maximum:g}"
        raise _true_cfg_fault(true_cfg_scale, reason)
    default = limits.default_true_cfg_scale
    scale = default if true_cfg_scale is None else true_cfg_scale
    return NegativePrompt(prompt=prompt, true_cfg_scale=scale)


def _true_cfg_fault(got: float | None, reason: str) -> RequestError:
    return RequestError("true_cfg_scale", f"true_cfg_scale: got {got:g}: {reason}")


def check_loras(loras: Sequence[LoraScale], model: str, limits: ImageLimits) -> None:
    """Each is one of the model's, and none is there twice."""
    if loras and not limits.loras:
        raise RequestError(
            "loras",
            f"loras: got {shown([lora.name for lora in loras])}; allowed: null, for {model} is "
            "served without LoRAs",
            "unsupported_parameter",
        )
    seen: set[str] = set()
    for index, lora in enumerate(loras):
        param = f"loras[{index}].name"
        if lora.name not in limits.loras:
            allowed = ", ".join(limits.loras)
            raise RequestError(param, f"{param}: got {shown(lora.name)}; allowed: {allowed}")
        if lora.name in seen:
            raise RequestError(param, f"{param}: got {shown(lora.name)} again; allowed: once")
        seen.add(lora.name)


def _tier_steps(limits: ImageLimits) -> dict[Quality, int]:
    """The steps of each tier, from few to many, inside what the model takes."""
    default, most = limits.default_num_steps, limits.max_num_steps
    return {
        quality: min(max(1, round(default * factor)), most)
        for quality, factor in _STEPS_FACTORS.items()
    }


def tier_of(num_steps: int, limits: ImageLimits) -> Quality:
    """The highest tier that these steps reach."""
    reached: Quality = "low"
    for quality, steps in _tier_steps(limits).items():
        if _tier_steps(limits)[reached] < steps <= num_steps:
            reached = quality
    return reached
