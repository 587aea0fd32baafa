"""Classify jobs: images in, the best labels with their probabilities out."""

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from worker.batch import BatchKey, Row
from worker.contract.jobs import ClassifyJob, ClassifyResult, Prediction
from worker.contract.record import AnyJob
from worker.failures import BadInputError
from worker.image_decoding import decode_image, from_base64
from worker.metrics import WorkerMetrics
from worker.residency import Residency


class Classifier(Protocol):
    """The part of `ImageClassifier` that jobs need."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def preprocess(self, image: Image.Image) -> Tensor:
        """Turn an image into [H, W, 3] float32."""

    def logits(self, images: Tensor) -> Tensor:
        """[B, H, W, 3] to [B, K]."""


class ClassifyTask:
    def __init__(self, residency: Residency[Classifier], metrics: WorkerMetrics) -> None:
        self._residency = residency
        self._metrics = metrics

    def prepare(self, job: AnyJob) -> list[Row[Tensor]]:
        classifier = self._residency.get(job.model)
        return [
            self._row(job, index, encoded, classifier)
            for index, encoded in enumerate(_classify_job(job).images)
        ]

    def forward(self, model: str, prepared: Sequence[Tensor]) -> list[Tensor]:
        """One row of probabilities [K] for each image, on the CPU."""
        with self._metrics.stage_duration.labels(model, "forward").time():
            logits = self._residency.get(model).logits(torch.stack(list(prepared)))
            probabilities = logits.float().softmax(dim=-1).cpu()
        self._metrics.classified_images.labels(model).inc(len(prepared))
        return list(probabilities)

    def result(self, job: AnyJob, rows: Sequence[Tensor]) -> ClassifyResult:
        labels = self._residency.get(job.model).labels
        top_k = _classify_job(job).top_k
        return ClassifyResult(predictions=tuple(best(row, labels, top_k) for row in rows))

    def warm_up(self, model: str) -> None:
        classifier = self._residency.get(model)
        classifier.logits(classifier.preprocess(Image.new("RGB", (32, 32)))[None])

    def _row(self, job: AnyJob, index: int, encoded: str, classifier: Classifier) -> Row[Tensor]:
        try:
            with self._metrics.stage_duration.labels(job.model, "preprocess").time():
                pixels = classifier.preprocess(decode_image(from_base64(encoded)))
        except Exception as error:
            raise BadInputError(f"input[{index}]") from error
        return Row(BatchKey(job.model, tuple(pixels.shape)), pixels)


def best(probabilities: Tensor, labels: Sequence[str], top_k: int) -> tuple[Prediction, ...]:
    """The `top_k` most probable labels of [K], ties by class id."""
    scores, class_ids = probabilities.sort(descending=True, stable=True)
    return tuple(
        Prediction(label=labels[class_id], class_id=class_id, score=score)
        for class_id, score in zip(class_ids[:top_k].tolist(), scores[:top_k].tolist(), strict=True)
    )


def _classify_job(job: AnyJob) -> ClassifyJob:
    assert isinstance(job, ClassifyJob), f"a {job.task} job in the classify queue: this is a bug"
    return job
