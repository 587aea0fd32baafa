"""The classifier behind every peer's server: image files in, the five best labels out.

Decodes, prepares and computes with our own library, loaded by our worker's own loader, so that the
servers are compared and neither models nor precisions. Knows nothing about HTTP.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, cast

import torch
from PIL import Image

from models.vit.image_classifier import ImageClassifier
from worker.contract.jobs import Task
from worker.device_memory import Memory
from worker.loading import ModelLoader
from worker.model_specs import ModelSpec

NUM_BEST = 5  # what our service answers by default

Prediction: TypeAlias = dict[str, str | int | float]  # label, class_id and score


class ServedClassifier:
    def __init__(self, model: Path | str) -> None:
        torch.set_num_threads(os.cpu_count() or 1)  # frameworks set one, or none
        spec = ModelSpec(name="classifier", handle=str(model), task=Task.CLASSIFY)
        loader = ModelLoader("cpu", Memory())
        loader.measure(spec, _report, None)
        self.classifier = cast(ImageClassifier, loader.load(spec, _report).pipeline)

    def classify(self, files: Sequence[bytes]) -> list[list[Prediction]]:
        """Answer a batch."""
        images = [self.classifier.preprocess(Image.open(io.BytesIO(file))) for file in files]
        probabilities = self.classifier.logits(torch.stack(images)).softmax(dim=1)
        best = probabilities.topk(min(NUM_BEST, len(self.classifier.labels)))
        return [
            [
                {"label": self.classifier.labels[index], "class_id": index, "score": score}
                for score, index in zip(scores, indices, strict=True)
            ]
            for scores, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def _report(_: object) -> None:
    """Say nothing while it loads."""
