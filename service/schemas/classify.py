"""Bodies of `POST /v1/classify`: images as data URIs, base64 or files; labels with scores back."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from service.errors import RequestError, shown
from service.schemas.encoded_images import ImageBytes, checked, from_text
from service.schemas.fields import (
    Absent,
    Name,
    OneOrMany,
    PriorityField,
    RequestBody,
    ResponseBody,
    Timings,
    end_user_of,
)
from worker.contract.jobs import ClassifyJob, ClassifyResult, ScoreFunction, new_job_id
from worker.contract.model_cards import ModelCard
from worker.contract.record import Record

_DEFAULT_TOP_K = 5
_IMAGES = (
    "an image or a list of images, each a data URI or base64 of PNG, JPEG or WebP; of an animation "
    "the first frame counts"
)


class ClassifyOptions(RequestBody):
    """What may be asked of each image."""

    model: Name | None = Field(
        default=None, description="a classification model; null: the default one"
    )
    top_k: int | None = Field(default=None, ge=1, description="labels per image; null: 5")
    function_to_apply: ScoreFunction | None = Field(
        default=None,
        description="what a score is. softmax (also null): a probability, where all labels of the "
        "model exclude each other; sigmoid: a probability of the label by itself; none: the logit",
    )
    labels: OneOrMany | None = Field(
        default=None,
        description="only these labels of the model are answered, and `top_k` counts among them; "
        "scores stay as they are without it; null: all",
    )
    include_probs: bool | None = Field(
        default=None, description="true: the scores of all labels as well, as `probs`"
    )
    priority: PriorityField = None
    user: Name | None = Field(
        default=None, description="the person it is for, kept with the job as its SHA-256"
    )


class ClassifyRequest(ClassifyOptions):
    """What to look at, and what to say of it."""

    input: OneOrMany = Field(description=_IMAGES)


class HuggingFaceParameters(RequestBody):
    top_k: int | None = Field(default=None, ge=1)
    function_to_apply: ScoreFunction | None = None


class HuggingFaceRequest(RequestBody):
    """The same in the words of Hugging Face's inference clients."""

    inputs: OneOrMany = Field(description=_IMAGES)
    parameters: HuggingFaceParameters | None = None
    model: Name | None = Field(
        default=None, description="a classification model; null: the default one"
    )

    @property
    def options(self) -> ClassifyOptions:
        parameters = self.parameters or HuggingFaceParameters()
        return ClassifyOptions(model=self.model, **parameters.model_dump())


class Prediction(ResponseBody):
    label: str
    class_id: int
    score: float = Field(description="by `function_to_apply`")


class Classification(ResponseBody):
    object: Literal["classification"] = "classification"
    index: int
    label: str = Field(description="of the best prediction")
    score: float
    predictions: list[Prediction] = Field(
        description="the `top_k` best, equal scores by `class_id`"
    )
    probs: Absent[list[float]] = Field(
        default=None, description="with `include_probs`: the scores of all labels, by class id"
    )
    num_classes: Absent[int] = Field(
        default=None, description="with `include_probs`: how many these are"
    )


class ClassifyUsage(ResponseBody):
    images: int
    prompt_tokens: int = Field(default=0, description="always 0: images have none")
    total_tokens: int = Field(default=0, description="always 0")


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
                    probs=None if result.scores is None else list(result.scores[index]),
                    num_classes=None if result.scores is None else len(result.scores[index]),
                )
                for index, best in enumerate(result.predictions)
            ],
            usage=ClassifyUsage(images=len(result.predictions)),
            timings=Timings.from_record(record),
        )


@dataclass(frozen=True, slots=True)
class Upload:
    """What all kinds of bodies come to. An image at fault is `input[i]`, as the workers say."""

    images: tuple[ImageBytes, ...]
    options: ClassifyOptions

    @property
    def num_bytes(self) -> int:
        return sum(len(image.content) for image in self.images)

    def to_job(self, card: ModelCard, max_bytes: int, now: float, timeout_s: float) -> ClassifyJob:
        """Raises RequestError for what the model does not take."""
        options = self.options
        labels = None if options.labels is None else _wanted(options.labels, card)
        num_labels = _num_answered(labels, card)
        top_k = min(_DEFAULT_TOP_K, num_labels) if options.top_k is None else options.top_k
        if top_k > num_labels:
            raise RequestError("top_k", f"top_k: got {shown(top_k)}; allowed: 1 to {num_labels}")
        return ClassifyJob(
            id=new_job_id(),
            model=card.name,
            created_at=now,
            deadline_at=now + timeout_s,
            priority=options.priority or "normal",
            end_user=end_user_of(options.user),
            images=tuple(_encoded(image, max_bytes) for image in self.images),
            top_k=top_k,
            function=options.function_to_apply or "softmax",
            labels=labels,
            includes_scores=options.include_probs or False,
        )


def images_of(param: str, texts: str | list[str], max_images: int) -> tuple[ImageBytes, ...]:
    """From text to bytes; raises RequestError naming the first image that is not base64."""
    texts = [texts] if isinstance(texts, str) else texts
    check_count(param, texts, max_images)
    return tuple(from_text(image_param(index), text) for index, text in enumerate(texts))


def image_param(index: int) -> str:
    return f"input[{index}]"


def check_count(param: str, images: Sequence[object], max_images: int) -> None:
    if not 1 <= len(images) <= max_images:
        raise RequestError(param, f"{param}: got {len(images)} images; allowed: 1 to {max_images}")


def _wanted(labels: str | list[str], card: ModelCard) -> tuple[str, ...]:
    """In one order whatever the request's, so that equal jobs are equal."""
    wanted = [labels] if isinstance(labels, str) else labels
    if not wanted:
        raise RequestError("labels", "labels: got none; allowed: one or more of the model's")
    known = set(card.labels or ())
    for index, label in enumerate(wanted):
        if label not in known:
            param = "labels" if isinstance(labels, str) else f"labels[{index}]"
            allowed = f"one of the {len(known)} labels that GET /v1/models/{card.name} lists"
            raise RequestError(param, f"{param}: got {shown(label)}; allowed: {allowed}")
    return tuple(sorted(set(wanted)))


def _num_answered(wanted: tuple[str, ...] | None, card: ModelCard) -> int:
    """Several of a model's labels may be the same word."""
    labels = card.labels or ()
    if wanted is None:
        return len(labels)
    answered = frozenset(wanted)
    return sum(label in answered for label in labels)


def _encoded(image: ImageBytes, max_bytes: int) -> str:
    """The image in base64, as the job carries it."""
    return base64.b64encode(checked(image, max_bytes)).decode("ascii")
