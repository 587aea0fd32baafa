"""What a call of `TextToImage.generate` asks for: checked, and spread over the images.

Knows nothing about tensors or models.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from models.flux.latents import PIXELS_PER_PATCH
from models.flux.sampling import checked_shift

DEFAULT_STRENGTH = 0.6  # diffusers' FluxImg2ImgPipeline's
MAX_SEED = 2**63 - 1

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaintOptions:
    """How to paint, the same for all images of a call.

    width, height        pixels, multiples of 16
    num_steps            at least 1; 28 is usual for FLUX.1 dev, 4 for schnell
    guidance_scale       the distilled guidance (dev: 3.5); None where the backbone embeds none
    true_cfg_scale       above 1: away from the negative prompts, by a second forward per step
    strength             in (0, 1], of image-to-image: how much of the schedule is run; None: 0.6
    max_sequence_length  T5 tokens per prompt; None: as the original, 256 for schnell, else 512
    flow_shift           above 0: how far noise levels lie towards 1 (`Schedule.sigmas`); None: as
                         the preset says, 1 for schnell, with the image's size for dev

    Raises ValueError for a value outside its range.
    """

    width: int
    height: int
    num_steps: int
    guidance_scale: float | None = None
    true_cfg_scale: float = 1.0
    strength: float | None = None
    max_sequence_length: int | None = None
    flow_shift: float | None = None

    def __post_init__(self) -> None:
        check_size(self.width, self.height)
        if self.num_steps < 1:
            raise ValueError(f"num_steps {self.num_steps} is less than 1")
        if not self.true_cfg_scale >= 1:
            raise ValueError(f"true_cfg_scale {self.true_cfg_scale} is less than 1, which is off")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ValueError(f"strength {self.strength} is not in (0, 1]")
        if self.flow_shift is not None:
            checked_shift(self.flow_shift)

    @property
    def start_strength(self) -> float:
        return DEFAULT_STRENGTH if self.strength is None else self.strength


def check_size(width: int, height: int) -> None:
    for side, pixels in (("width", width), ("height", height)):
        if pixels <= 0 or pixels % PIXELS_PER_PATCH:
            raise ValueError(f"{side} {pixels} is not a multiple of {PIXELS_PER_PATCH}")


def listed(values: V | Sequence[V] | None, kind: type[V]) -> tuple[V, ...]:
    """Give one value, several or none as a tuple; a string is one value."""
    if values is None:
        return ()
    return (values,) if isinstance(values, kind) else tuple(cast(Sequence[V], values))


def check_combination(options: PaintOptions, has_negatives: bool, has_start_images: bool) -> None:
    """Raise ValueError for an argument that would be ignored, or that lacks its other half."""
    if has_negatives and options.true_cfg_scale == 1:
        raise ValueError("negative_prompts have no effect at true_cfg_scale 1; give more than 1")
    if not has_negatives and options.true_cfg_scale > 1:
        raise ValueError(
            f"true_cfg_scale {options.true_cfg_scale} needs negative_prompts; '' is allowed"
        )
    if options.strength is not None and not has_start_images:
        raise ValueError(f"strength {options.strength} has no effect without start_images")


def check_counts(
    num_prompts: int, num_images_per_prompt: int, num_negatives: int, num_start_images: int
) -> None:
    """Check that the rest is one for all prompts, one per prompt, or not there."""
    if num_prompts < 1:
        raise ValueError("there is no prompt; at least one is needed")
    if num_images_per_prompt < 1:
        raise ValueError(f"num_images_per_prompt {num_images_per_prompt} is less than 1")
    for name, count in (("negative_prompts", num_negatives), ("start_images", num_start_images)):
        if count not in (0, 1, num_prompts):
            raise ValueError(f"{count} {name} do not go with {num_prompts} prompts")


def check_rows(name: str, num_rows: int, num_images: int) -> None:
    """Check that each row serves the same number of neighbouring images."""
    if not num_rows or num_images % num_rows:
        raise ValueError(f"{num_rows} {name} do not go with {num_images} seeds")


def seed_each(seeds: int | Sequence[int] | None, num_images: int) -> tuple[int, ...]:
    """Give every image its seed: a first one counts up, None draws the first one."""
    if seeds is None:
        seeds = secrets.randbelow(2**32)
    spread = tuple(range(seeds, seeds + num_images)) if isinstance(seeds, int) else tuple(seeds)
    if len(spread) != num_images:
        raise ValueError(f"{len(spread)} seeds do not go with {num_images} images")
    for seed in spread:
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed {seed} is not in 0 … {MAX_SEED}")
    return spread
