"""The events of a stream of images: OpenAI's, with more fields, and two more kinds for who asks.

https://developers.openai.com/api/docs/guides/image-generation. They are named `image_generation.…`
where nothing but words was given, and `image_edit.…` where an image was.
"""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import Field, JsonValue

from service.schemas.fields import Absent, ResponseBody
from service.schemas.image_fields import ImageFields
from service.schemas.images import ImageUsage
from worker.contract.events import Event, PreviewEvent, QueuedEvent, StepEvent
from worker.contract.jobs import ImageJob, ImageResult, OutputFormat, Quality
from worker.contract.record import Record

_PNG_HEAD_BYTES = 24  # signature, the first chunk's length and name, width and height


EventPrefix = Literal["image_generation", "image_edit"]


def _type(name: str) -> str:
    allowed: list[JsonValue] = [f"{prefix}.{name}" for prefix in get_args(EventPrefix)]
    field: str = Field(json_schema_extra={"enum": allowed})
    return field


class ImageQueued(ResponseBody):
    """The job waits; again after the loss of its worker."""

    type: str = _type("queued")
    created_at: int
    position: int = Field(description="jobs before this one, when it was queued")


class ImageProgress(ResponseBody):
    """A step is done."""

    type: str = _type("progress")
    created_at: int
    step: int = Field(description="done so far")
    total_steps: int
    eta_s: Absent[float] = Field(None, description="estimated, until the images are there")


class _Shown(ResponseBody):
    b64_json: str
    created_at: int
    size: str = Field(description="of the finished image, in pixels")
    quality: Quality
    background: Literal["opaque"] = "opaque"
    output_format: OutputFormat = Field(description="of `b64_json`")
    index: int = Field(description="which of the request's `n` images, from 0")
    width: int = Field(description="of `b64_json`, in pixels")
    height: int


class ImagePartial(_Shown):
    """What an image is about to look like: a small PNG, whatever the finished image is."""

    type: str = _type("partial_image")
    partial_image_index: int = Field(description="from 0, of each image")
    step: int = Field(description="the step that it was taken after")


class ImageCompleted(_Shown):
    """One image is finished; there is an event for each of them."""

    type: str = _type("completed")
    seed: int
    usage: ImageUsage = Field(
        description="of this image; what the images share is counted in the first"
    )
    safety_identifier: Absent[str] = None


ImageEvent = ImageQueued | ImageProgress | ImagePartial | ImageCompleted

_KINDS: Mapping[str, type[ImageEvent]] = {
    "queued": ImageQueued,
    "progress": ImageProgress,
    "partial_image": ImagePartial,
    "completed": ImageCompleted,
}


def event_kinds(prefix: EventPrefix) -> dict[str, type[ImageEvent]]:
    """The events of a route's stream, by their names."""
    return {f"{prefix}.{name}": kind for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class ImageEvents:
    """What happens to one job, as its client is told."""

    prefix: EventPrefix
    job: ImageJob
    body: ImageFields

    def from_event(self, event: Event) -> ImageEvent | None:
        """None for what the client did not ask for."""
        created_at = int(event.id.partition("-")[0]) // 1000  # Redis' clock, in milliseconds
        match event:
            case PreviewEvent():
                return self._partial(event, created_at)
            case QueuedEvent() if self.body.includes_progress:
                return ImageQueued(
                    type=f"{self.prefix}.queued", created_at=created_at, position=event.position
                )
            case StepEvent() if self.body.includes_progress:
                return ImageProgress(
                    type=f"{self.prefix}.progress",
                    created_at=created_at,
                    step=event.step,
                    total_steps=event.num_steps,
                    eta_s=event.remaining_s,
                )
            case _:
                return None

    def completed(self, record: Record, result: ImageResult, index: int) -> ImageCompleted:
        """Say that one of the images is finished; `b64_json` is to be filled in."""
        finished_at = record.finished_at
        assert finished_at is not None, "this is a bug: a final record has its time"
        image = result.images[index]
        return ImageCompleted(
            type=f"{self.prefix}.completed",
            b64_json="",
            created_at=int(finished_at),
            size=self._size,
            quality=self.job.quality,
            output_format=self.job.output_format,
            index=index,
            width=image.width,
            height=image.height,
            seed=image.seed,
            usage=ImageUsage.of_image(index, self.job, result),
            safety_identifier=self.body.end_user,
        )

    def _partial(self, event: PreviewEvent, created_at: int) -> ImagePartial:
        width, height = _png_size(event.image)
        return ImagePartial(
            type=f"{self.prefix}.partial_image",
            b64_json=event.image,
            created_at=created_at,
            size=self._size,
            quality=self.job.quality,
            output_format="png",
            index=event.index,
            width=width,
            height=height,
            partial_image_index=self.job.preview_steps.index(event.step),
            step=event.step,
        )

    @property
    def _size(self) -> str:
        return f"{self.job.width}x{self.job.height}"


def _png_size(encoded: str) -> tuple[int, int]:
    width, height = struct.unpack(">16x2I", base64.b64decode(encoded[: _PNG_HEAD_BYTES * 4 // 3]))
    return width, height
