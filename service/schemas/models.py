"""Bodies of `GET /v1/models`: OpenAI's, with what each model takes."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from service.catalog import Model
from service.schemas.fields import Absent, ResponseBody
from service.schemas.image_fields import (
    DEFAULT_STRENGTH,
    MAX_LORA_SCALE,
    MAX_PROMPT_CHARACTERS,
)
from service.schemas.image_limits import MAX_PREVIEWS
from worker.contract.jobs import Task
from worker.contract.model_cards import MAX_ASPECT, ImageLimits, ModelCard
from worker.contract.workers import ModelState

TaskName = Literal["text-to-image", "image-classification", "embedding"]
_TASKS: Mapping[Task, TaskName] = {
    Task.IMAGES: "text-to-image",
    Task.CLASSIFY: "image-classification",
    Task.EMBEDDINGS: "embedding",
}


class ModelLimits(ResponseBody):
    """What a request may ask of the model; only what applies to its task."""

    min_side: Absent[int] = None
    max_side: Absent[int] = None
    side_multiple: Absent[int] = None
    max_pixels: Absent[int] = None
    max_num_inference_steps: Absent[int] = None
    max_guidance_scale: Absent[float] = None
    max_true_cfg_scale: Absent[float] = None
    max_n: Absent[int] = None
    max_aspect: Absent[int] = Field(
        default=None, description="the longer side, as a multiple of the other"
    )
    max_prompt_characters: Absent[int] = None
    max_lora_scale: Absent[float] = Field(default=None, description="and the least, negated")
    max_preview_steps: Absent[int] = None
    num_labels: Absent[int] = None
    dimensions: Absent[int] = None
    max_tokens: Absent[int] = None
    vocabulary_size: Absent[int] = None


class ModelDefaults(ResponseBody):
    size: Absent[str] = None
    num_inference_steps: Absent[int] = None
    guidance_scale: Absent[float] = None
    true_cfg_scale: Absent[float] = Field(
        default=None, description="where there is a negative prompt"
    )
    strength: Absent[float] = Field(default=None, description="where there is a start image")


class ModelObject(ResponseBody):
    """What is known of a model; until it is loaded that is its name."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="when this service started")
    owned_by: Literal["triptych"] = "triptych"
    task: TaskName
    loaded: bool = Field(description="whether a warm worker serves it")
    state: ModelState
    progress: Absent[str] = Field(None, description="of loading")
    reason: Absent[str] = Field(None, description="why it could not be loaded")
    limits: ModelLimits
    defaults: ModelDefaults
    aliases: list[str]
    license: Absent[str] = None
    description: Absent[str] = None
    family: Absent[str] = Field(None, description="the backbone's class")
    source: Absent[str] = Field(None, description="the hub's handle that it came from")
    revision: Absent[str] = Field(None, description="the hub's, or a digest of the files")
    num_parameters: Absent[int] = None
    memory_bytes: Absent[int] = Field(None, description="of the parameters")
    dtype: Absent[str] = None
    device: Absent[str] = None
    load_s: Absent[float] = Field(None, description="how long loading took")
    loras: Absent[list[str]] = Field(None, description="of a text-to-image model: what to choose")
    labels: Absent[list[str]] = Field(None, description="by class id; not in the list of models")

    @classmethod
    def from_model(cls, model: Model, created: int, with_labels: bool = False) -> "ModelObject":
        card = model.card
        described = {} if card is None else card.model_dump(include=_DESCRIPTION)
        return cls(
            id=model.name,
            created=created,
            task=_TASKS[model.task],
            loaded=model.is_warm,
            state=model.state,
            progress=model.progress,
            reason=model.reason,
            load_s=model.load_s,
            limits=ModelLimits() if card is None else _limits(card),
            defaults=_defaults(None if card is None else card.image_limits),
            aliases=list(model.aliases),
            loras=list(card.image_limits.loras) if card and card.image_limits else None,
            labels=list(card.labels) if card and card.labels and with_labels else None,
            **described,
        )


class ModelList(ResponseBody):
    object: Literal["list"] = "list"
    data: list[ModelObject]


# the fields that a card and a model share
_DESCRIPTION = set(ModelObject.model_fields) & set(ModelCard.model_fields) - {"task", "labels"}


def _limits(card: ModelCard) -> ModelLimits:
    images = card.image_limits
    if images is None:
        return ModelLimits(
            num_labels=None if card.labels is None else len(card.labels),
            dimensions=card.embedding_width,
            max_tokens=card.max_tokens,
            vocabulary_size=card.vocabulary_size,
        )
    return ModelLimits(
        min_side=images.min_side,
        max_side=images.max_side,
        side_multiple=images.side_multiple,
        max_pixels=images.max_pixels,
        max_num_inference_steps=images.max_num_steps,
        max_guidance_scale=images.max_guidance_scale,
        max_true_cfg_scale=images.max_true_cfg_scale,
        max_n=images.max_images,
        max_aspect=MAX_ASPECT,
        max_prompt_characters=MAX_PROMPT_CHARACTERS,
        max_lora_scale=MAX_LORA_SCALE,
        max_preview_steps=MAX_PREVIEWS,
    )


def _defaults(images: ImageLimits | None) -> ModelDefaults:
    if images is None:
        return ModelDefaults()
    return ModelDefaults(
        size=f"{images.default_width}x{images.default_height}",
        num_inference_steps=images.default_num_steps,
        guidance_scale=images.default_guidance_scale,
        true_cfg_scale=images.default_true_cfg_scale,
        strength=DEFAULT_STRENGTH,
    )
