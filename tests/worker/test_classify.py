"""From logits to the predictions of a result."""

import math

import pytest
import torch

from models.errors import ImageDecodeError
from tests.worker.jobs import classify_job, image
from tests.worker.pipelines import TinyClassifier, resident
from worker.classify import ClassifyTask, best
from worker.contract.jobs import ClassifyJob, ClassifyResult, Task
from worker.failures import BadInputError
from worker.metrics import WorkerMetrics

_RED = 250 / 255  # the logit of a red image's red


def test_ties_go_to_the_lower_class_id() -> None:
    predictions = best(torch.tensor([0.2, 0.3, 0.2, 0.3]), ("a", "b", "c", "d"), top_k=4)
    assert [prediction.class_id for prediction in predictions] == [1, 3, 0, 2]


def test_only_the_best_are_kept_with_their_labels() -> None:
    predictions = best(torch.tensor([0.1, 0.7, 0.2]), ("a", "b", "c"), top_k=2)
    assert [prediction.label for prediction in predictions] == ["b", "c"]


def test_more_than_there_are_gives_all() -> None:
    assert len(best(torch.tensor([0.4, 0.6]), ("a", "b"), top_k=5)) == 2


def test_only_some_labels_can_be_asked_for() -> None:
    predictions = best(torch.tensor([0.4, 0.2, 0.3, 0.1, 0.2]), "abcde", top_k=2, among=[1, 3, 4])
    assert [(p.label, p.class_id) for p in predictions] == [("b", 1), ("e", 4)]
    assert [p.score for p in predictions] == pytest.approx([0.2, 0.2])


@pytest.fixture
def classifier() -> TinyClassifier:
    return TinyClassifier()


@pytest.fixture
def task(classifier: TinyClassifier) -> ClassifyTask:
    return ClassifyTask(
        resident(classifier, "vit_shapes", Task.CLASSIFY), WorkerMetrics(Task.CLASSIFY)
    )


def job_of(**changes: object) -> ClassifyJob:
    return classify_job(image((250, 0, 0)), image((0, 0, 250))).model_copy(update=changes)


def run(task: ClassifyTask, *jobs: ClassifyJob) -> list[ClassifyResult]:
    """All jobs in one forward, each with its own result."""
    prepared = [row.prepared for job in jobs for row in task.prepare(job)]
    rows = iter(task.forward("vit_shapes", prepared))
    return [task.result(job, [next(rows) for _ in job.images]) for job in jobs]


def test_scores_are_probabilities_of_each_image_in_order(task: ClassifyTask) -> None:
    [result] = run(task, job_of())
    assert [best_of[0].label for best_of in result.predictions] == ["red", "blue"]
    assert sum(p.score for p in result.predictions[0]) == pytest.approx(1.0)
    assert result.scores is None


@pytest.mark.parametrize(
    ("function", "of_red", "of_green"),
    [
        ("softmax", math.e**_RED / (math.e**_RED + 2), 1 / (math.e**_RED + 2)),
        ("sigmoid", 1 / (1 + math.e**-_RED), 0.5),
        ("none", _RED, 0.0),
    ],
)
def test_a_score_is_what_the_function_makes_of_the_logit(
    task: ClassifyTask, function: str, of_red: float, of_green: float
) -> None:
    [result] = run(task, job_of(function=function))
    of_red_image = result.predictions[0]
    assert [prediction.label for prediction in of_red_image] == ["red", "green", "blue"]
    scores = [prediction.score for prediction in of_red_image]
    assert scores == pytest.approx([of_red, of_green, of_green])


def test_jobs_of_several_functions_share_a_forward(
    task: ClassifyTask, classifier: TinyClassifier
) -> None:
    jobs = [job_of(function=function) for function in ("softmax", "none", "sigmoid", "softmax")]
    together = run(task, *jobs)
    assert classifier.batch_sizes == [8]
    assert together == [run(task, job)[0] for job in jobs]


def test_a_filter_leaves_the_scores_as_they_are(task: ClassifyTask) -> None:
    everything, some = run(task, job_of(), job_of(labels=("blue", "red"), top_k=1))
    assert [best_of[0] for best_of in some.predictions] == [p[0] for p in everything.predictions]
    [green] = run(task, job_of(labels=("green",), top_k=1))
    assert green.predictions[0][0] in everything.predictions[0]


def test_a_label_of_two_classes_asks_for_both(
    task: ClassifyTask, classifier: TinyClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "labels", ("crane", "green", "crane"))
    [result] = run(task, job_of(labels=("crane",), top_k=2))
    assert [p.class_id for p in result.predictions[0]] == [0, 2]


def test_all_scores_are_there_where_they_are_asked_for(task: ClassifyTask) -> None:
    [result] = run(task, job_of(function="none", includes_scores=True, top_k=1))
    assert result.scores is not None
    assert [*result.scores[0], *result.scores[1]] == pytest.approx([_RED, 0, 0, 0, 0, _RED])


def test_a_bad_image_is_named(task: ClassifyTask) -> None:
    job = classify_job(image(), "bm90IGFuIGltYWdl")
    with pytest.raises(BadInputError) as raised:
        task.prepare(job)
    assert raised.value.param == "input[1]"
    assert isinstance(raised.value.__cause__, ImageDecodeError)
