"""The class names of ImageNet-1k."""

import pytest

from models.vit.imagenet import NUM_LABELS, imagenet_labels


def test_every_class_has_a_name_of_its_own() -> None:
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == NUM_LABELS
    assert all(label == label.strip() != "" for label in labels)


@pytest.mark.parametrize(
    ("class_id", "label"),
    [
        (0, "tench"),
        (1, "goldfish"),
        (134, "crane bird"),
        (207, "golden retriever"),
        (285, "Egyptian cat"),
        (517, "crane"),
        (817, "sports car"),
        (999, "toilet tissue"),
    ],
)
def test_a_class_id_has_the_name_that_everyone_gives_it(class_id: int, label: str) -> None:
    assert imagenet_labels()[class_id] == label
