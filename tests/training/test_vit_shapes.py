"""The images that `vit_shapes` is trained on, and its head."""

import math
import random
from collections import Counter

import pytest
import torch
from PIL import Image
from torch import nn

from training.shapes_world import COLOURS
from training.vit_images import (
    LABELS,
    NO_SHAPE,
    SEVERAL,
    SIDE,
    DrawnImage,
    augment,
    draw_batch,
    draw_image,
    off_colour,
)
from training.vit_shapes import FactoredHead


def test_there_are_110_shapes_and_two_other_labels() -> None:
    assert len(set(LABELS)) == 112
    assert LABELS[-2:] == (NO_SHAPE, SEVERAL)


def test_a_batch_follows_from_its_seed() -> None:
    first, again = draw_batch(seed=3, size=4), draw_batch(seed=3, size=4)

    assert first.images.shape == (4, SIDE, SIDE, 3)
    assert first.images.abs().max() <= 1.0
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.class_ids, again.class_ids)


def test_some_images_of_a_batch_are_the_image_models_own() -> None:
    own = [DrawnImage(Image.new("RGB", (SIDE, SIDE)), "gray arrow", radius=0.3)]

    batch = draw_batch(seed=1, size=200, own=own)

    assert 30 < (batch.class_ids == LABELS.index("gray arrow")).sum() < 70


def test_most_images_show_a_single_shape() -> None:
    rng = random.Random(1)

    drawn = Counter(draw_image(rng).label for _ in range(600))

    assert 10 < drawn[NO_SHAPE] < 60
    assert 140 < drawn[SEVERAL] < 240


@pytest.mark.parametrize("name", COLOURS)
def test_a_colour_that_is_off_keeps_its_name(name: str) -> None:
    rng = random.Random(1)

    for _ in range(200):
        colour = off_colour(name, rng)
        assert min(COLOURS, key=lambda n: math.dist(colour, COLOURS[n])) == name


def test_augmenting_changes_an_image_only_a_little() -> None:
    images = torch.zeros(4, 3, SIDE, SIDE)

    augmented = augment(images, torch.Generator().manual_seed(1))

    assert 0.0 < (augmented - images).abs().mean() < 0.25


def test_some_images_are_not_worn() -> None:
    images = torch.zeros(60, 3, 8, 8)

    augmented = augment(images, torch.Generator().manual_seed(1))

    num_untouched = sum(
        torch.equal(one, image) for one, image in zip(augmented, images, strict=True)
    )
    assert 8 <= num_untouched <= 30


def test_the_dense_layer_gives_the_logits_of_the_factored_head() -> None:
    torch.manual_seed(1)
    head, dense = FactoredHead(8), nn.Linear(8, len(LABELS))
    features = torch.randn(3, 5, 8)

    head.copy_into(dense)

    torch.testing.assert_close(dense(features.mean(dim=1)), head(features))


def test_a_head_that_begins_with_a_dense_layer_of_sums_gives_its_logits() -> None:
    torch.manual_seed(1)
    dense, again = nn.Linear(8, len(LABELS)), nn.Linear(8, len(LABELS))
    FactoredHead(8).copy_into(dense)

    head = FactoredHead(8)
    head.copy_from(dense)

    head.copy_into(again)
    torch.testing.assert_close(again.weight, dense.weight)
    torch.testing.assert_close(again.bias, dense.bias)
