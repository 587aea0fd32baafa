"""What a text-to-image model takes by default: FLUX.1's limits, and those of the bundled preset.

Free of torch.
"""

from dataclasses import dataclass

from models.errors import PresetError
from models.presets import get_preset
from worker.contract.model_cards import MAX_ASPECT, ImageLimits
from worker.model_specs import ModelSpec

_GUIDED = ImageLimits(  # FLUX.1 [dev]
    default_width=1024,
    default_height=1024,
    side_multiple=16,
    min_side=256,
    max_side=2048,
    max_pixels=2048 * 1024,  # the 2 megapixels that black-forest-labs name as the upper end
    default_num_steps=28,
    low_num_steps=20,
    max_num_steps=50,
    default_guidance_scale=3.5,
    max_guidance_scale=10.0,
    # of a model whose guidance is distilled: diffusers' example for dev (its pull request 9445)
    default_true_cfg_scale=1.5,
    max_true_cfg_scale=10.0,  # far above what still gives an image: 4 for `flux_shapes`
    max_sequence_length=512,
    max_images=4,  # of one prompt, painted together
)
_UNGUIDED = _GUIDED.model_copy(  # FLUX.1 [schnell]
    update={
        "default_num_steps": 4,
        "low_num_steps": None,
        "default_guidance_scale": None,
        "max_guidance_scale": None,
        "max_sequence_length": 256,
    }
)
_OF_PRESETS = {
    "flux_shapes": ImageLimits(
        default_width=128,
        default_height=128,
        side_multiple=16,
        min_side=64,
        max_side=256,
        max_pixels=256 * 256,
        default_num_steps=20,
        max_num_steps=80,
        default_guidance_scale=2.0,
        max_guidance_scale=10.0,
        default_true_cfg_scale=3.0,  # "a circle" without "red" is another colour from here on
        max_true_cfg_scale=10.0,
        max_sequence_length=48,
        max_images=10,
    )
}


@dataclass(frozen=True, slots=True)
class FluxProperties:
    """What the loaded model says about itself."""

    has_guidance: bool
    max_sequence_length: int  # that its tokenizer reads


def limits_of(spec: ModelSpec, properties: FluxProperties) -> ImageLimits:
    """What a model takes, with what the configuration says of it.

    Raises PresetError for a configuration that the model cannot fulfil.
    """
    if spec.handle is None and spec.name in _OF_PRESETS:
        limits = _OF_PRESETS[spec.name]
    else:
        limits = _GUIDED if properties.has_guidance else _UNGUIDED
    length = min(limits.max_sequence_length, properties.max_sequence_length)
    limits = limits.model_copy(update={"max_sequence_length": length, "loras": tuple(spec.loras)})
    return _with_steps(_with_sizes(limits, spec), spec)


def preset_limits(name: str) -> ImageLimits:
    """What a built-in text-to-image preset takes, told without loading it."""
    config = get_preset(name).backbone_config or {}
    properties = FluxProperties(bool(config.get("guidance_embed")), _GUIDED.max_sequence_length)
    return limits_of(ModelSpec(name=name), properties)


def _with_sizes(limits: ImageLimits, spec: ModelSpec) -> ImageLimits:
    changes: dict[str, int] = {}
    if spec.max_side is not None:
        changes |= {"max_side": spec.max_side, "max_pixels": spec.max_side**2}
    if spec.default_size is not None:
        width, height = map(int, spec.default_size.split("x"))
        changes |= {"default_width": width, "default_height": height}
        changes["min_side"] = min(limits.min_side, width, height)
        changes["max_pixels"] = max(changes.get("max_pixels", limits.max_pixels), width * height)
    changed = limits.model_copy(update=changes)
    default = changed.default_width, changed.default_height
    fits = all(side % changed.side_multiple == 0 and side <= changed.max_side for side in default)
    if not fits or max(default) > MAX_ASPECT * min(default):
        raise PresetError(
            f"model {spec.name}: default_size is {default[0]}x{default[1]}; allowed: multiples of "
            f"{changed.side_multiple} up to {changed.max_side} (max_side), 1:{MAX_ASPECT} to "
            f"{MAX_ASPECT}:1"
        )
    return changed


def _with_steps(limits: ImageLimits, spec: ModelSpec) -> ImageLimits:
    changes: dict[str, float | None] = {}
    if spec.num_steps is not None:
        most = max(limits.max_num_steps, spec.num_steps)
        changes |= {"default_num_steps": spec.num_steps, "max_num_steps": most}
        changes["low_num_steps"] = None
    if spec.guidance_scale is not None:
        if limits.max_guidance_scale is None:
            raise PresetError(f"model {spec.name} has no guidance; guidance_scale must be left out")
        most_guidance = max(limits.max_guidance_scale, spec.guidance_scale)
        changes |= {
            "default_guidance_scale": spec.guidance_scale,
            "max_guidance_scale": most_guidance,
        }
    return limits.model_copy(update=changes)
