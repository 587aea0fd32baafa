"""What can be said of an image to be painted, whether it is generated, edited or varied.

OpenAI's fields, and those that FLUX adds. Limits and defaults come from the model's card, never
from here. OpenAI's fields that this service has no use for are named one by one: accepted and
ignored, or refused with a reason.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.errors import RequestError, shown
from service.schemas.encoded_images import ImageBytes, checked, from_text
from service.schemas.fields import (
    Many,
    Name,
    PriorityField,
    RequestBody,
    Unsupported,
    WellFormed,
    end_user_of,
)
from service.schemas.image_limits import (
    MAX_PREVIEWS,
    MAX_SEED,
    check_loras,
    compression_of,
    guidance_of,
    negative_of,
    num_images_of,
    num_run_steps,
    num_steps_of,
    partial_steps_of,
    preview_steps_of,
    seeds_of,
    sequence_length_of,
    size_of,
    tier_of,
)
from worker.contract.image_files import start_name
from worker.contract.jobs import ImageJob, LoraScale, OutputFormat, StartImage, new_job_id
from worker.contract.model_cards import ImageLimits

MAX_PROMPT_CHARACTERS = 32_000  # OpenAI's; what the encoders cut off shows in the answer
DEFAULT_STRENGTH = 0.6  # diffusers' FluxImg2ImgPipeline's
MAX_LORA_SCALE = 10.0  # sliders are made for -5 to 5; far beyond, no image is left
_MAX_FLOW_SHIFT = 100.0  # models have 1 to 3; at 100 the last of 20 steps still begins at 0.84
_MAX_LORAS = 64  # more than any model is served with


def unsupported(*values: str, reason: str) -> BeforeValidator:
    """Refuse values that are OpenAI's but mean nothing here, with a code of their own."""

    def check(value: object) -> object:
        if value in values:
            raise PydanticCustomError("unsupported_value", reason)
        return value

    return BeforeValidator(check)


def only_one(images: object) -> object:
    """Refuse several images, where OpenAI allows them."""
    if isinstance(images, list) and len(images) != 1:
        raise PydanticCustomError("count", "one image is allowed")
    return images


def _item(images: object) -> object:
    only_one(images)
    return images[0] if isinstance(images, list) else images


def _without_effect(param: str, got: object, reason: str) -> RequestError:
    return RequestError(param, f"{param}: got {shown(got)}; {reason}; allowed: null")


# Base64 or a data URI in JSON, the bytes of a file in a form; one of them may come as an array.
EncodedImage = Annotated[str | bytes, BeforeValidator(_item), WithJsonSchema({"type": "string"})]
Strength = Annotated[float, Field(gt=0, le=1)]


class LoraChoice(RequestBody):
    """One of the model's LoRAs."""

    name: Name = Field(description="one of the model's `loras`")
    scale: float = Field(
        1.0,
        ge=-MAX_LORA_SCALE,
        le=MAX_LORA_SCALE,
        allow_inf_nan=False,
        description="how many times it counts; 0: not at all",
    )


class StreamOptions(RequestBody):
    """What else a stream tells."""

    include_progress: bool | None = Field(
        None,
        description="events of the place in the queue and of the steps, which are not OpenAI's",
    )


class ImageFields(RequestBody):
    """How to paint."""

    # of a form, as JSON
    STRUCTURED: ClassVar[tuple[str, ...]] = ("loras", "preview_steps", "stream_options")

    model: Name | None = Field(None, description="a text-to-image model; null: the default one")
    n: int | None = Field(None, ge=1, description="number of images; null: 1")
    size: Name | None = Field(
        None, description="`auto` or WIDTHxHEIGHT in pixels", examples=["128x128"]
    )
    width: int | None = Field(None, ge=1, description="with `height` the same as `size`")
    height: int | None = Field(None, ge=1, description="with `width` the same as `size`")
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="image i has seed + i; null: random; always echoed"
    )
    num_inference_steps: int | None = Field(
        None, ge=1, description="denoising steps; wins over `quality`"
    )
    steps: int | None = Field(None, ge=1, description="the same as `num_inference_steps`")
    guidance_scale: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="distilled guidance, where the model has it"
    )
    guidance: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="the same as `guidance_scale`"
    )
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), WellFormed] | None = (
        Field(
            None,
            description="what not to paint, by true classifier-free guidance: two forwards a step",
        )
    )
    true_cfg_scale: float | None = Field(
        None,
        ge=1,
        allow_inf_nan=False,
        description="how far away from `negative_prompt`, which it needs; 1 is off; null: the "
        "model's default where there is a negative prompt that is not empty",
    )
    max_sequence_length: int | None = Field(
        None, ge=1, description="T5 tokens of a prompt, which is cut there; null: the model's most"
    )
    flow_shift: float | None = Field(
        None,
        gt=0,
        le=_MAX_FLOW_SHIFT,
        description="how much longer the steps stay at strong noise; null: the model's",
    )
    loras: Many[LoraChoice] | None = Field(
        None, max_length=_MAX_LORAS, description="which of the model's LoRAs count"
    )
    preview_steps: Many[int] | None = Field(
        None,
        description="after which steps the job's events show what its images look like: at most "
        f"{MAX_PREVIEWS}, of those that are run",
    )
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = (
        Field(None, description="tier of steps: about half, once, twice, … the model's default")
    )
    acceleration: Annotated[
        Literal["none"] | None,
        unsupported("regular", "high", reason="no steps are left out here; allowed: 'none'"),
    ] = Field(None, description="both the same: every step is computed")
    priority: PriorityField = None
    response_format: Literal["b64_json", "base64", "url"] | None = Field(
        None, description="null and base64: b64_json"
    )
    output_format: Annotated[
        OutputFormat | None,
        unsupported("gif", "svg", reason="not painted here; allowed: 'png', 'jpeg' or 'webp'"),
    ] = Field(None, description="null: png, or what `Accept` names")
    output_compression: int | None = Field(
        None, ge=0, le=100, description="quality of a JPEG or WebP, which it needs; null: 100"
    )
    background: Annotated[
        Literal["auto", "opaque"] | None,
        unsupported(
            "transparent", reason="FLUX paints no alpha channel; allowed: 'auto', 'opaque'"
        ),
    ] = Field(None, description="both the same: FLUX paints no alpha channel")
    stream: bool | None = Field(None, description="answer with server-sent events; null: false")
    partial_images: int | None = Field(
        None, ge=0, le=MAX_PREVIEWS, description="previews in the stream, evenly spaced; null: 0"
    )
    stream_options: StreamOptions | None = Field(None, description="of a stream")
    safety_identifier: Name | None = Field(
        None, description="the person they are for, echoed, and kept with the job as its SHA-256"
    )
    user: Name | None = Field(
        None, description="the same as `safety_identifier`, where that is empty"
    )
    style: Literal["vivid", "natural"] | None = Field(None, description="accepted and ignored")
    moderation: Literal["low", "auto"] | None = Field(None, description="accepted and ignored")
    complexity: Unsupported = None
    frame_count: Unsupported = None
    frame_duration_ms: Unsupported = None
    svg: Unsupported = None

    @property
    def prompt_text(self) -> str:
        """What the prompt says; a variation has none."""
        return ""

    @property
    def start(self) -> tuple[str, str | bytes] | None:
        """The field that brings the image to start from, and what it holds; None: only noise."""
        return None

    @property
    def start_field(self) -> str:
        """What the body calls the image to start from; workers know it as `image`."""
        return "image" if self.start is None else self.start[0]

    @property
    def start_strength(self) -> float:
        """How much of the steps is run; all where there is no image to start from."""
        return 1.0

    @property
    def includes_progress(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_progress)

    @property
    def end_user(self) -> str | None:
        """Who the caller paints for, as OpenAI's answers repeat it."""
        return self.safety_identifier or self.user or None

    @model_validator(mode="after")
    def _only_where_it_counts(self) -> Self:
        if self.stream and self.response_format == "url":
            raise _without_effect("response_format", "url", "a stream brings its images in base64")
        if self.partial_images and not self.stream:
            raise _without_effect("partial_images", self.partial_images, "needs stream")
        if self.stream_options and not self.stream:
            raise _without_effect(
                "stream_options", self.stream_options.model_dump(), "needs stream"
            )
        if self.partial_images and self.preview_steps:
            raise _without_effect("preview_steps", self.preview_steps, "partial_images says which")
        return self

    def to_job(
        self,
        model: str,
        limits: ImageLimits,
        now: float,
        timeout_s: float,
        accepted_format: OutputFormat | None = None,
    ) -> ImageJob:
        """Fill in the model's defaults; raises RequestError for what the model does not take.

        `accepted_format` counts where the body does not say which.
        """
        width, height = size_of(self.size, self.width, self.height, limits)
        num_steps = num_steps_of(self.num_inference_steps, self.steps, self.quality, limits)
        output_format = self.output_format or accepted_format or "png"
        job_id = new_job_id()
        return ImageJob(
            id=job_id,
            model=model,
            created_at=now,
            deadline_at=now + timeout_s,
            priority=self.priority or "normal",
            end_user=end_user_of(self.end_user),
            prompt=self.prompt_text,
            seeds=seeds_of(self.seed, num_images_of(self.n, limits)),
            width=width,
            height=height,
            num_steps=num_steps,
            guidance_scale=guidance_of(self.guidance_scale, self.guidance, model, limits),
            quality=tier_of(num_steps, limits),
            loras=self._loras(model, limits),
            negative=negative_of(self.negative_prompt, self.true_cfg_scale, limits),
            start=self._start_image(job_id),
            preview_steps=self._preview_steps(num_run_steps(num_steps, self.start_strength)),
            max_sequence_length=sequence_length_of(self.max_sequence_length, limits),
            flow_shift=self.flow_shift,
            output_format=output_format,
            output_compression=compression_of(self.output_compression, output_format),
        )

    def start_content(self, max_bytes: int) -> bytes:
        """The image to start from; raises RequestError for what no worker would decode."""
        assert self.start is not None, "this is a bug: there is no start image"
        param, encoded = self.start
        image = (
            from_text(param, encoded) if isinstance(encoded, str) else ImageBytes(param, encoded)
        )
        return checked(image, max_bytes)

    def _start_image(self, job_id: str) -> StartImage | None:
        if self.start is None:
            return None
        return StartImage(file_name=start_name(job_id), strength=self.start_strength)

    def _loras(self, model: str, limits: ImageLimits) -> tuple[LoraScale, ...]:
        chosen = self.loras or []
        loras = tuple(LoraScale(name=lora.name, scale=lora.scale) for lora in chosen)
        check_loras(loras, model, limits)
        return loras

    def _preview_steps(self, num_steps: int) -> tuple[int, ...]:
        if self.partial_images:
            return partial_steps_of(self.partial_images, num_steps)
        return preview_steps_of(self.preview_steps, num_steps)
