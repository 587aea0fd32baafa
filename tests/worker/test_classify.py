"""From logits to the predictions of a result."""

import pytest
import torch

from tests.worker.jobs import classify_job, image
from tests.worker.pipelines import TinyClassifier, resident
from worker.classify import ClassifyTask, best
from worker.contract.jobs import Task
from worker.metrics import WorkerMetrics


def test_ties_go_to_the_lower_class_id() -> None:
    predictions = best(torch.tensor([0.2, 0.3, 0.2, 0.3]), ("a", "b", "c", "d"), top_k=4)
    assert [prediction.class_id for prediction in predictions] == [1, 3, 0, 2]


def test_only_the_best_are_kept_with_their_labels() -> None:
    predictions = best(torch.tensor([0.1, 0.7, 0.2]), ("a", "b", "c"), top_k=2)
    assert [prediction.label for prediction in predictions] == ["b", "c"]


def test_more_than_there_are_gives_all() -> None:
    assert len(best(torch.tensor([0.4, 0.6]), ("a", "b"), top_k=5)) == 2


def test_scores_are_probabilities_of_each_image_in_order() -> None:
    metrics = WorkerMetrics()
    task = ClassifyTask(resident(TinyClassifier(), "vit_shapes", Task.CLASSIFY), metrics)
    job = classify_job(image((250, 0, 0)), image((0, 0, 250)))
    rows = task.forward("vit_shapes", [row.prepared for row in task.prepare(job)])
    predictions = task.result(job, rows).predictions
    assert [best_of[0].label for best_of in predictions] == ["red", "blue"]
    assert sum(prediction.score for prediction in predictions[0]) == pytest.approx(1.0)
