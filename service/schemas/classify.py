"""Bodies of `POST /v1/classify`: images as data URIs, base64 or files; labels with scores back."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.errors import RequestError, shown
from service.schemas.encoded_images import ImageBytes, checked, from_text
from service.schemas.fields import (
    OneOrMany,
    PriorityField,
    RequestBody,
    ResponseBody,
    Text,
    Timings,
)
from worker.contract.jobs import ClassifyJob, ClassifyResult, Priority, new_job_id
from worker.contract.model_cards import ModelCard
from worker.contract.record import Record

_DEFAULT_TOP_K = 5


class ClassifyRequest(RequestBody):
    """What to look at."""

    input: OneOrMany = Field(
        description="an image or a list of images, each a data URI or base64 of PNG, JPEG or WebP"
    )
    model: Text | None = Field(None, description="a classification model; null: the default one")
    top_k: int | None = Field(None, ge=1, description="labels per image; null: 5")
    priority: PriorityField = None
    user: Text | None = Field(None, description="accepted and ignored")


class ClassifyFields(BaseModel):
    """The text fields of multipart/form-data, where every number is text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Text | None = None
    top_k: int | None = Field(None, ge=1)
    priority: PriorityField = None
    user: Text | None = None


class Prediction(ResponseBody):
    label: str
    class_id: int
    score: float = Field(description="probability")


class Classification(ResponseBody):
    object: Literal["classification"] = "classification"
    index: int
    label: str = Field(description="of the best prediction")
    score: float
    predictions: list[Prediction]


class ClassifyUsage(ResponseBody):
    images: int
    prompt_tokens: Literal[0] = 0
    total_tokens: Literal[0] = 0


class ClassifyResponse(ResponseBody):
    id: str = Field(description="the job's id")
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Classification]
    usage: ClassifyUsage
    timings: Timings

    @classmethod
    def from_result(cls, record: Record, result: ClassifyResult) -> "ClassifyResponse":
        return cls(
            id=record.id,
            created=int(record.finished_at or record.job.created_at),
            model=record.job.model,
            data=[
                Classification(
                    index=index,
                    label=best[0].label,
                    score=best[0].score,
                    predictions=[
                        Prediction(label=p.label, class_id=p.class_id, score=p.score) for p in best
                    ],
                )
                for index, best in enumerate(result.predictions)
            ],
            usage=ClassifyUsage(images=len(result.predictions)),
            timings=Timings.from_record(record),
        )


@dataclass(frozen=True, slots=True)
class Upload:
    """What both kinds of bodies come to."""

    images: tuple[ImageBytes, ...]
    model: str | None
    top_k: int | None
    priority: Priority | None

    @property
    def num_bytes(self) -> int:
        return sum(len(image.content) for image in self.images)

    def to_job(self, card: ModelCard, max_bytes: int, now: float, timeout_s: float) -> ClassifyJob:
        """Raises RequestError for what the model does not take."""
        num_labels = len(card.labels or ())
        top_k = min(_DEFAULT_TOP_K, num_labels) if self.top_k is None else self.top_k
        if top_k > num_labels:
            raise RequestError("top_k", f"top_k: got {shown(top_k)}; allowed: 1 to {num_labels}")
        return ClassifyJob(
            id=new_job_id(),
            model=card.name,
            created_at=now,
            deadline_at=now + timeout_s,
            priority=self.priority or "normal",
            images=tuple(_encoded(image, max_bytes) for image in self.images),
            top_k=top_k,
        )


def upload_of(request: ClassifyRequest) -> Upload:
    """From text to bytes; raises RequestError naming the first image that is not base64."""
    if isinstance(request.input, str):
        images = [from_text("input", request.input)]
    else:
        images = [from_text(f"input[{i}]", text) for i, text in enumerate(request.input)]
    return Upload(tuple(images), request.model, request.top_k, request.priority)


def check_count(param: str, images: Sequence[object], max_images: int) -> None:
    if not 1 <= len(images) <= max_images:
        raise RequestError(param, f"{param}: got {len(images)} images; allowed: 1 to {max_images}")


def _encoded(image: ImageBytes, max_bytes: int) -> str:
    """The image in base64, as the job carries it."""
    return base64.b64encode(checked(image, max_bytes)).decode("ascii")
