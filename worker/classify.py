"""Classify jobs: images in, the best labels with their scores out."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from worker.batch import BatchKey, Row
from worker.contract.jobs import ClassifyJob, ClassifyResult, Prediction, ScoreFunction
from worker.contract.record import AnyJob
from worker.failures import BadInputError
from worker.image_decoding import decode_image, from_base64
from worker.metrics import WorkerMetrics
from worker.residency import Residency

# Logits [B, K] to scores [B, K].
_SCORES: Mapping[ScoreFunction, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}


class Classifier(Protocol):
    """The part of `ImageClassifier` that jobs need."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def preprocess(self, image: Image.Image) -> Tensor:
        """Turn an image into [H, W, 3] float32."""

    def logits(self, images: Tensor) -> Tensor:
        """[B, H, W, 3] to [B, K]."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    pixels: Tensor
    function: ScoreFunction


class ClassifyTask:
    def __init__(self, residency: Residency[Classifier], metrics: WorkerMetrics) -> None:
        self._residency = residency
        self._metrics = metrics

    def prepare(self, job: AnyJob) -> list[Row[PreparedImage]]:
        job = _classify_job(job)
        classifier = self._residency.get(job.model)
        return [
            self._row(job, index, encoded, classifier) for index, encoded in enumerate(job.images)
        ]

    def forward(self, model: str, prepared: Sequence[PreparedImage]) -> list[Tensor]:
        """One row of scores [K] for each image, by its own function, on the CPU."""
        pixels = torch.stack([image.pixels for image in prepared])
        logits = self._residency.get(model).logits(pixels).float()
        scores = {
            function: _SCORES[function](logits).cpu().unbind()
            for function in {image.function for image in prepared}
        }
        return [scores[image.function][row] for row, image in enumerate(prepared)]

    def count(self, model: str, prepared: Sequence[PreparedImage]) -> None:
        self._metrics.classified_images.labels(model).inc(len(prepared))

    def result(self, job: AnyJob, rows: Sequence[Tensor]) -> ClassifyResult:
        job = _classify_job(job)
        labels = self._residency.get(job.model).labels
        class_ids = None if job.labels is None else _ids_of(set(job.labels), labels)
        return ClassifyResult(
            predictions=tuple(best(row, labels, job.top_k, class_ids) for row in rows),
            scores=tuple(tuple(row.tolist()) for row in rows) if job.includes_scores else None,
        )

    def warm_up(self, model: str) -> None:
        classifier = self._residency.get(model)
        classifier.logits(classifier.preprocess(Image.new("RGB", (32, 32)))[None])

    def _row(
        self, job: ClassifyJob, index: int, encoded: str, classifier: Classifier
    ) -> Row[PreparedImage]:
        try:
            pixels = classifier.preprocess(decode_image(from_base64(encoded)))
        except Exception as error:
            raise BadInputError(f"input[{index}]") from error
        key = BatchKey(job.model, tuple(pixels.shape))
        return Row(key, PreparedImage(pixels, job.function))


def best(
    scores: Tensor, labels: Sequence[str], top_k: int, among: Sequence[int] | None = None
) -> tuple[Prediction, ...]:
    """The `top_k` labels with the highest scores of [K], ties by class id.

    `among` are the class ids that count, in order; None: all.
    """
    if among is not None:
        scores = scores[list(among)]
    highest, order = scores.sort(descending=True, stable=True)
    class_ids = order[:top_k].tolist()
    if among is not None:
        class_ids = [among[index] for index in class_ids]
    return tuple(
        Prediction(label=labels[class_id], class_id=class_id, score=score)
        for class_id, score in zip(class_ids, highest[:top_k].tolist(), strict=True)
    )


def _ids_of(wanted: Set[str], labels: Sequence[str]) -> list[int]:
    """Several classes may have one label: ImageNet's cranes are a bird and a machine."""
    return [class_id for class_id, label in enumerate(labels) if label in wanted]


def _classify_job(job: AnyJob) -> ClassifyJob:
    assert isinstance(job, ClassifyJob), f"a {job.task} job in the classify queue: this is a bug"
    return job
