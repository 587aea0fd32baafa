"""Bodies of `GET /v1/models`: OpenAI's, with what each model takes."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from models.presets import Preset, PresetTask
from service.schemas.fields import Absent, ResponseBody


class ModelLimits(ResponseBody):
    """What a request may ask of the model; only what applies to its task."""

    min_side: Absent[int] = None
    max_side: Absent[int] = None
    side_multiple: Absent[int] = None
    max_pixels: Absent[int] = None
    max_num_inference_steps: Absent[int] = None
    max_guidance_scale: Absent[float] = None
    max_n: Absent[int] = None
    num_labels: Absent[int] = None
    dimensions: Absent[int] = None
    max_tokens: Absent[int] = None


class ModelDefaults(ResponseBody):
    size: Absent[str] = None
    num_inference_steps: Absent[int] = None
    guidance_scale: Absent[float] = None


class ModelObject(ResponseBody):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="when this service started")
    owned_by: Literal["triptych"] = "triptych"
    task: PresetTask
    loaded: bool = Field(description="whether a warm worker serves it")
    limits: ModelLimits
    defaults: ModelDefaults
    aliases: list[str]
    license: str
    description: str

    @classmethod
    def from_preset(
        cls, preset: Preset, aliases: Sequence[str], is_loaded: bool, created: int
    ) -> "ModelObject":
        assert preset.task is not None, f"this is a bug: {preset.name} is served without a task"
        return cls(
            id=preset.name,
            created=created,
            task=preset.task,
            loaded=is_loaded,
            limits=_limits(preset),
            defaults=_defaults(preset),
            aliases=list(aliases),
            license=preset.license,
            description=preset.description,
        )


class ModelList(ResponseBody):
    object: Literal["list"] = "list"
    data: list[ModelObject]


def _limits(preset: Preset) -> ModelLimits:
    images = preset.image_limits
    if images is None:
        return ModelLimits(
            num_labels=preset.num_labels,
            dimensions=preset.embedding_width,
            max_tokens=preset.max_tokens,
        )
    return ModelLimits(
        min_side=images.min_side,
        max_side=images.max_side,
        side_multiple=images.side_multiple,
        max_pixels=images.max_pixels,
        max_num_inference_steps=images.max_num_steps,
        max_guidance_scale=images.max_guidance_scale,
        max_n=images.max_images,
    )


def _defaults(preset: Preset) -> ModelDefaults:
    images = preset.image_limits
    if images is None:
        return ModelDefaults()
    return ModelDefaults(
        size=f"{images.default_width}x{images.default_height}",
        num_inference_steps=images.default_num_steps,
        guidance_scale=images.default_guidance_scale,
    )
