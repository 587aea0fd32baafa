"""Body and answer of `POST /v1/images/generations`; edits and variations answer alike."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from service.errors import RequestError
from service.schemas.fields import Absent, ResponseBody, Text, Timings
from service.schemas.image_fields import (
    DEFAULT_STRENGTH,
    MAX_PROMPT_CHARACTERS,
    ImageFields,
    Strength,
)
from worker.contract.jobs import ImageJob, ImageResult, OutputFormat, Quality
from worker.contract.record import Record


class ImageRequest(ImageFields):
    """What to paint."""

    prompt: Text = Field(
        min_length=1, max_length=MAX_PROMPT_CHARACTERS, description="what the images are to show"
    )
    image: str | None = Field(
        None,
        description="what to start from, a data URI or base64 of PNG, JPEG or WebP; it is "
        "stretched to `size`, whose default it does not change",
    )
    strength: Strength | None = Field(
        None,
        description="of `image`, which it needs: how much of the steps is run, and how little of "
        f"the image is left; null: {DEFAULT_STRENGTH:g}",
    )

    @property
    def prompt_text(self) -> str:
        return self.prompt

    @property
    def start(self) -> tuple[str, str | bytes] | None:
        return None if self.image is None else ("image", self.image)

    @property
    def start_strength(self) -> float:
        if self.image is None:
            return 1.0
        return DEFAULT_STRENGTH if self.strength is None else self.strength

    @model_validator(mode="after")
    def _strength_has_its_image(self) -> Self:
        if self.strength is not None and self.image is None:
            message = f"strength: got {self.strength:g}; needs image; allowed: null"
            raise RequestError("strength", message)
        return self


class InputTokens(ResponseBody):
    text_tokens: int = Field(description="of the prompts, as they were encoded")
    image_tokens: int = Field(description="latent patches of the image that was started from")


class OutputTokens(ResponseBody):
    image_tokens: int = Field(description="latent patches")
    text_tokens: int = 0


class ImageUsage(ResponseBody):
    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: OutputTokens
    total_tokens: int

    @classmethod
    def from_result(cls, job: ImageJob, result: ImageResult) -> "ImageUsage":
        """Of all images of a job. The image to start from is encoded once, in their size."""
        start_patches = 0 if job.start is None else result.num_patches // len(result.images)
        return cls._of(result.num_text_tokens, start_patches, result.num_patches)

    @classmethod
    def of_image(cls, index: int, job: ImageJob, result: ImageResult) -> "ImageUsage":
        """Of one image alone: the first one counts what all of them share."""
        whole = cls.from_result(job, result)
        shared = (
            whole.input_tokens_details if index == 0 else InputTokens(text_tokens=0, image_tokens=0)
        )
        num_patches = whole.output_tokens // len(result.images)
        return cls._of(shared.text_tokens, shared.image_tokens, num_patches)

    @classmethod
    def _of(cls, text: int, start_patches: int, num_patches: int) -> "ImageUsage":
        return cls(
            input_tokens=text + start_patches,
            input_tokens_details=InputTokens(text_tokens=text, image_tokens=start_patches),
            output_tokens=num_patches,
            output_tokens_details=OutputTokens(image_tokens=num_patches),
            total_tokens=text + start_patches + num_patches,
        )


class ImageItem(ResponseBody):
    b64_json: Absent[str] = None
    url: Absent[str] = None
    expires_at: Absent[int] = Field(
        default=None, description="of `url`: until then it leads to the image"
    )
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
    output_format: OutputFormat
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
        end_user: str | None = None,
    ) -> "ImagesResponse":
        job = record.job
        assert isinstance(job, ImageJob), "this is a bug: an image result of another job"
        return cls(
            id=job.id,
            created=int(record.finished_at or job.created_at),
            model=job.model,
            data=list(items),
            output_format=job.output_format,
            quality=job.quality,
            size=f"{job.width}x{job.height}",
            usage=ImageUsage.from_result(job, result),
            prompt_truncated=result.is_prompt_truncated,
            seed=job.seeds[0],
            num_inference_steps=job.num_steps,
            guidance_scale=job.guidance_scale,
            true_cfg_scale=None if job.negative is None else job.negative.true_cfg_scale,
            strength=None if job.start is None else job.start.strength,
            loras=[UsedLora(name=lora.name, scale=lora.scale) for lora in job.loras] or None,
            timings=Timings.from_record(record),
            safety_identifier=end_user,
        )
