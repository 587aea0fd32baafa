"""What a model's limits make of the fields of an image request: defaults filled in, or a 400.

Nothing is rounded or cut to fit: what a model does not take is refused, with what it takes.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from service.errors import RequestError, shown
from worker.contract.jobs import LoraScale, NegativePrompt, OutputFormat, Quality
from worker.contract.model_cards import MAX_ASPECT, ImageLimits

MAX_SEED = 2**63 - 1
MAX_PREVIEWS = 3  # of an image, as OpenAI's partial images
_RANDOM_SEEDS = 2**32  # small enough for the numbers of every JSON reader
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")

_Number = TypeVar("_Number", int, float)

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


def num_steps_of(
    num_inference_steps: int | None, steps: int | None, quality: str | None, limits: ImageLimits
) -> int:
    """Explicit steps, by either name, win over the tier."""
    param, value = _by_either("num_inference_steps", num_inference_steps, "steps", steps)
    if value is None:
        return _tier_steps(limits)[_QUALITIES[quality or "auto"]]
    return _at_most(param, value, limits.max_num_steps)


def _by_either(
    name: str, value: _Number | None, alias: str, other: _Number | None
) -> tuple[str, _Number | None]:
    """A field that has two names: the one that was given, and its value."""
    if value is not None and other is not None:
        raise RequestError(alias, f"{alias}: the same as {name}, which is given too")
    return (name, value) if other is None else (alias, other)


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


def partial_steps_of(num_previews: int, num_steps: int) -> tuple[int, ...]:
    """Evenly spaced, each once and none of them the last: that is the image itself."""
    spaced = {num_steps * (i + 1) // (num_previews + 1) for i in range(num_previews)}
    return tuple(sorted(spaced - {0}))


def num_run_steps(num_steps: int, strength: float) -> int:
    """How many steps image-to-image runs, rounded as `models/flux/sampling` rounds."""
    return num_steps - min(int(num_steps - num_steps * strength), num_steps - 1)


def size_of(
    size: str | None, width: int | None, height: int | None, limits: ImageLimits
) -> tuple[int, int]:
    """Width and height, said by `size` or by the two. Nothing is rounded to fit."""
    if width is None and height is None:
        return _size_of_text(size, limits)
    given, other = ("width", "height") if width is not None else ("height", "width")
    if size is not None:
        raise RequestError(given, f"{given}: the same as size, which is given too")
    if width is None or height is None:
        raise RequestError(
            other, f"{other}: missing; {given} needs it", "missing_required_parameter"
        )
    if (fault := _size_fault(width, height, limits)) is not None:
        raise RequestError(fault.side, f"{fault.side}: {fault.reason}")
    return width, height


def _size_of_text(size: str | None, limits: ImageLimits) -> tuple[int, int]:
    if size is None or size == "auto":
        return limits.default_width, limits.default_height
    match = _SIZE.fullmatch(size)
    if match is None:
        raise RequestError("size", f"size: got {shown(size)}; allowed: auto or WIDTHxHEIGHT")
    width, height = int(match[1]), int(match[2])
    if (fault := _size_fault(width, height, limits)) is not None:
        raise RequestError("size", f"size: got {shown(size)}: {fault.reason}")
    return width, height


@dataclass(frozen=True, slots=True)
class _SizeFault:
    side: Literal["width", "height"]  # the one at fault; of a fault of both, the first
    reason: str


def _size_fault(width: int, height: int, limits: ImageLimits) -> _SizeFault | None:
    sides: dict[Literal["width", "height"], int] = {"width": width, "height": height}
    for name, side in sides.items():
        if side % limits.side_multiple:
            multiple = limits.side_multiple
            return _SizeFault(name, f"{name} {shown(side)} is not a multiple of {multiple}")
        if not limits.min_side <= side <= limits.max_side:
            allowed = f"{limits.min_side} to {limits.max_side}"
            return _SizeFault(name, f"{name} {shown(side)} is not in {allowed}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        return _SizeFault(
            "width", f"longer than 1:{MAX_ASPECT}; allowed: 1:{MAX_ASPECT} to {MAX_ASPECT}:1"
        )
    if width * height > limits.max_pixels:
        reason = f"{width * height} pixels; allowed: at most {limits.max_pixels}"
        return _SizeFault("width", reason)
    return None


def sequence_length_of(length: int | None, limits: ImageLimits) -> int | None:
    """None for the model's most: who names it shares forwards with who does not."""
    if length is None or length == limits.max_sequence_length:
        return None
    return _at_most("max_sequence_length", length, limits.max_sequence_length)


def compression_of(quality: int | None, output_format: OutputFormat) -> int:
    if quality is None:
        return 100
    if output_format == "png":
        message = f"output_compression: got {quality}; allowed: null, for a PNG loses nothing"
        raise RequestError("output_compression", message)
    return quality


def guidance_of(
    guidance_scale: float | None, guidance: float | None, model: str, limits: ImageLimits
) -> float | None:
    param, value = _by_either("guidance_scale", guidance_scale, "guidance", guidance)
    if value is None:
        return limits.default_guidance_scale
    if limits.max_guidance_scale is None:
        message = f"{param}: got {value:g}; allowed: null, for {model} has no guidance"
        raise RequestError(param, message, "unsupported_parameter")
    if value > limits.max_guidance_scale:
        allowed = f"0 to {limits.max_guidance_scale:g}"
        raise RequestError(param, f"{param}: got {value:g}; allowed: {allowed}")
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
    tiers = {
        quality: min(max(1, round(default * factor)), most)
        for quality, factor in _STEPS_FACTORS.items()
    }
    return tiers if limits.low_num_steps is None else tiers | {"low": limits.low_num_steps}


def tier_of(num_steps: int, limits: ImageLimits) -> Quality:
    """The highest tier that these steps reach."""
    reached: Quality = "low"
    for quality, steps in _tier_steps(limits).items():
        if _tier_steps(limits)[reached] < steps <= num_steps:
            reached = quality
    return reached
