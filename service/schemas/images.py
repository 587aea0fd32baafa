"""Bodies of `POST /v1/images/generations`: OpenAI's fields, and those that FLUX adds.

Limits and defaults come from the model's card, never from here. OpenAI's fields that this service
has no use for are named one by one: accepted and ignored, or refused with a reason.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from service.errors import RequestError
from service.schemas.encoded_images import checked, from_text
from service.schemas.fields import Absent, PriorityField, RequestBody, ResponseBody, Text, Timings
from service.schemas.image_limits import (
    MAX_PREVIEWS,
    MAX_SEED,
    check_loras,
    guidance_of,
    negative_of,
    num_images_of,
    num_steps_of,
    preview_steps_of,
    seeds_of,
    size_of,
    tier_of,
)
from worker.contract.image_files import start_name
from worker.contract.jobs import (
    ImageJob,
    ImageResult,
    LoraScale,
    Quality,
    StartImage,
    new_job_id,
)
from worker.contract.model_cards import ImageLimits
from worker.contract.record import Record

_MAX_PROMPT_CHARACTERS = 32_000  # OpenAI's; what the encoders cut off shows in the usage
_MAX_LORA_SCALE = 10.0  # sliders are made for -5 to 5; far beyond, no image is left
_DEFAULT_STRENGTH = 0.6  # diffusers' FluxImg2ImgPipeline's
_ALIASES = {"steps": "num_inference_steps", "guidance": "guidance_scale"}


def _only_png(output_format: object) -> object:
    if output_format in ("jpeg", "webp", "gif", "svg"):
        raise PydanticCustomError("unsupported_value", "not supported here; allowed: 'png'")
    return output_format


def _no_transparency(background: object) -> object:
    if background == "transparent":
        raise PydanticCustomError(
            "unsupported_value", "FLUX paints no alpha channel; allowed: 'auto', 'opaque'"
        )
    return background


def _no_stream(stream: bool) -> bool:
    if stream:
        raise PydanticCustomError("unsupported_value", "streaming is not supported; allowed: false")
    return stream


def _no_partial_images(partial_images: int) -> int:
    if partial_images:
        raise PydanticCustomError("unsupported_value", "needs stream; allowed: 0")
    return partial_images


def _only_null(value: object) -> None:
    if value is not None:
        raise PydanticCustomError("unsupported_parameter", "not supported here; allowed: null")


Unsupported = Annotated[object, AfterValidator(_only_null)]


class LoraChoice(RequestBody):
    """One of the model's LoRAs."""

    name: Text = Field(description="one of the model's `loras`")
    scale: float = Field(
        1.0,
        ge=-_MAX_LORA_SCALE,
        le=_MAX_LORA_SCALE,
        allow_inf_nan=False,
        description="how many times it counts; 0: not at all",
    )


class ImageRequest(RequestBody):
    """What to paint."""

    prompt: Text = Field(min_length=1, max_length=_MAX_PROMPT_CHARACTERS)
    model: Text | None = Field(None, description="a text-to-image model; null: the default one")
    n: int | None = Field(None, ge=1, description="number of images; null: 1")
    size: Text | None = Field(
        None, description="`auto` or WIDTHxHEIGHT in pixels", examples=["128x128"]
    )
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="image i has seed + i; null: random; always echoed"
    )
    num_inference_steps: int | None = Field(
        None,
        ge=1,
        validation_alias=AliasChoices("num_inference_steps", "steps"),
        description="denoising steps (alias `steps`); wins over `quality`",
    )
    guidance_scale: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        validation_alias=AliasChoices("guidance_scale", "guidance"),
        description="distilled guidance (alias `guidance`), where the model has it",
    )
    negative_prompt: Text | None = Field(
        None,
        max_length=_MAX_PROMPT_CHARACTERS,
        description="what not to paint, by true classifier-free guidance: two forwards a step",
    )
    true_cfg_scale: float | None = Field(
        None,
        ge=1,
        allow_inf_nan=False,
        description="how far away from `negative_prompt`, which it needs; 1 is off; null: the "
        "model's default where there is a negative prompt that is not empty",
    )
    image: str | None = Field(
        None,
        description="what to start from, a data URI or base64 of PNG, JPEG or WebP; it is "
        "stretched to `size`, whose default it does not change",
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="of `image`, which it needs: how much of the steps is run, and how little of "
        f"the image is left; null: {_DEFAULT_STRENGTH:g}",
    )
    loras: list[LoraChoice] | None = Field(None, description="which of the model's LoRAs count")
    preview_steps: list[int] | None = Field(
        None,
        description="after which steps the job's events show what its images look like: at most "
        f"{MAX_PREVIEWS}, of those that are run",
    )
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = (
        Field(None, description="tier of steps: half, once, twice, … the model's default")
    )
    priority: PriorityField = None
    response_format: Literal["b64_json", "url"] | None = Field(None, description="null: b64_json")
    output_format: Annotated[Literal["png"] | None, BeforeValidator(_only_png)] = None
    background: Annotated[Literal["auto", "opaque"] | None, BeforeValidator(_no_transparency)] = (
        Field(None, description="both the same: FLUX paints no alpha channel")
    )
    stream: Annotated[bool, AfterValidator(_no_stream)] | None = None
    partial_images: (
        Annotated[Annotated[int, Field(ge=0, le=3)], AfterValidator(_no_partial_images)] | None
    ) = None
    safety_identifier: Text | None = Field(None, description="echoed")
    user: Text | None = Field(None, description="accepted and ignored")
    style: Literal["vivid", "natural"] | None = Field(None, description="accepted and ignored")
    moderation: Literal["low", "auto"] | None = Field(None, description="accepted and ignored")
    output_compression: Unsupported = None
    complexity: Unsupported = None
    frame_count: Unsupported = None
    frame_duration_ms: Unsupported = None
    svg: Unsupported = None

    @model_validator(mode="before")
    @classmethod
    def _one_name_each(cls, body: object) -> object:
        for alias, name in _ALIASES.items():
            if isinstance(body, Mapping) and alias in body and name in body:
                raise RequestError(alias, f"{alias}: the same as {name}, which is given too")
        return body

    def to_job(self, model: str, limits: ImageLimits, now: float, timeout_s: float) -> ImageJob:
        """Fill in the model's defaults; raises RequestError for what the model does not take."""
        width, height = size_of(self.size, limits)
        num_steps = num_steps_of(self.num_inference_steps, self.quality, limits)
        job_id = new_job_id()
        return ImageJob(
            id=job_id,
            model=model,
            created_at=now,
            deadline_at=now + timeout_s,
            priority=self.priority or "normal",
            prompt=self.prompt,
            seeds=seeds_of(self.seed, num_images_of(self.n, limits)),
            width=width,
            height=height,
            num_steps=num_steps,
            guidance_scale=guidance_of(self.guidance_scale, model, limits),
            quality=tier_of(num_steps, limits),
            loras=self._loras(model, limits),
            negative=negative_of(self.negative_prompt, self.true_cfg_scale, limits),
            start=self._start(job_id),
            preview_steps=preview_steps_of(self.preview_steps, num_steps),
        )

    def start_image(self, max_bytes: int) -> bytes:
        """The content of `image`; raises RequestError for what no worker would decode."""
        assert self.image is not None, "this is a bug: there is no start image"
        return checked(from_text("image", self.image), max_bytes)

    def _loras(self, model: str, limits: ImageLimits) -> tuple[LoraScale, ...]:
        chosen = self.loras or []
        loras = tuple(LoraScale(name=lora.name, scale=lora.scale) for lora in chosen)
        check_loras(loras, model, limits)
        return loras

    def _start(self, job_id: str) -> StartImage | None:
        if self.image is not None:
            strength = _DEFAULT_STRENGTH if self.strength is None else self.strength
            return StartImage(file_name=start_name(job_id), strength=strength)
        if self.strength is not None:
            message = f"strength: got {self.strength:g}; needs image; allowed: null"
            raise RequestError("strength", message)
        return None


class TokenDetails(ResponseBody):
    text_tokens: int
    image_tokens: int


class ImageUsage(ResponseBody):
    input_tokens: int = Field(description="text tokens that were encoded")
    input_tokens_details: TokenDetails
    output_tokens: int = Field(description="latent patches of all images")
    total_tokens: int


class ImageItem(ResponseBody):
    b64_json: Absent[str] = None
    url: Absent[str] = None
    seed: int
    width: int
    height: int


class UsedLora(ResponseBody):
    name: str
    scale: float


class ImagesResponse(ResponseBody):
    """OpenAI's images response; `id`, `model`, `seed` and the fields after `usage` are ours."""

    id: str = Field(description="the job's id")
    created: int
    model: str
    data: list[ImageItem]
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png"] = "png"
    quality: Quality
    size: str
    usage: ImageUsage
    prompt_truncated: bool = Field(
        description="a prompt was longer than the model reads: its end had no effect"
    )
    seed: int = Field(description="of the first image")
    num_inference_steps: int
    guidance_scale: float | None
    true_cfg_scale: Absent[float] = Field(None, description="where there is a negative prompt")
    strength: Absent[float] = Field(None, description="where there is a start image")
    loras: Absent[list[UsedLora]] = Field(None, description="where some were chosen")
    timings: Timings
    safety_identifier: Absent[str] = None

    @classmethod
    def from_result(
        cls,
        record: Record,
        result: ImageResult,
        items: Sequence[ImageItem],
        safety_identifier: str | None = None,
    ) -> "ImagesResponse":
        job = record.job
        assert isinstance(job, ImageJob), "this is a bug: an image result of another job"
        return cls(
            id=job.id,
            created=int(record.finished_at or job.created_at),
            model=job.model,
            data=list(items),
            quality=job.quality,
            size=f"{job.width}x{job.height}",
            usage=_usage(result),
            prompt_truncated=result.is_prompt_truncated,
            seed=job.seeds[0],
            num_inference_steps=job.num_steps,
            guidance_scale=job.guidance_scale,
            true_cfg_scale=None if job.negative is None else job.negative.true_cfg_scale,
            strength=None if job.start is None else job.start.strength,
            loras=[UsedLora(name=lora.name, scale=lora.scale) for lora in job.loras] or None,
            timings=Timings.from_record(record),
            safety_identifier=safety_identifier,
        )


def _usage(result: ImageResult) -> ImageUsage:
    text, patches = result.num_text_tokens, result.num_patches
    return ImageUsage(
        input_tokens=text,
        input_tokens_details=TokenDetails(text_tokens=text, image_tokens=0),
        output_tokens=patches,
        total_tokens=text + patches,
    )
