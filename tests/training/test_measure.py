"""The measuring command's verdicts, on pictures whose truth is known."""

import random
from dataclasses import replace

import numpy as np
import pytest

from models.vit.image_classifier import ImageClassifier
from training.measure import Measurement, judge
from training.shapes_world import SHAPES, Scene, render


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    return ImageClassifier.from_preset("vit_shapes")


def judged(
    painted: list[Scene], asked: list[Scene], classifier: ImageClassifier
) -> dict[str, float]:
    rng = random.Random(3)
    pictures = [np.array(render(scene, rng, 128)) for scene in painted]
    measured = judge("seen", asked, pictures, classifier, (0.97, 0.95, 0.92))
    return {measurement.name.removeprefix("seen: "): measurement.share for measurement in measured}


def test_pictures_of_what_was_asked_for_are_all_right(classifier: ImageClassifier) -> None:
    scenes = [Scene("purple", shape, "large", "bottom", "yellow") for shape in SHAPES]

    assert set(judged(scenes, scenes, classifier).values()) == {1.0}


def test_only_what_is_wrong_is_counted_as_wrong(classifier: ImageClassifier) -> None:
    asked = [Scene("red", "circle", "large", "center", "white")] * 2
    painted = [asked[0], replace(asked[1], position="left", shape="square")]

    assert judged(painted, asked, classifier) == {
        "background colour": 1.0,
        "shape colour": 1.0,
        "shape colour by vit_shapes": 1.0,
        "position": 0.5,
        "shape by geometry": 0.5,
        "shape by vit_shapes": 0.5,
    }


@pytest.mark.parametrize(("share", "verdict"), [(0.97, "ok"), (0.969, "TOO LOW")])
def test_the_table_says_what_falls_short(share: float, verdict: str) -> None:
    assert Measurement("position", share, asked=0.97, count=500).line.endswith(verdict)
