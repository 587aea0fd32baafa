"""The sentences that `f_net_shapes` is trained on: which attract and which repel."""

import random

import torch

from training.f_net_shapes import (
    contrast,
    draw_batch,
    draw_scene,
    fits,
    in_order,
    neighbour,
    partial,
)
from training.shapes_world import Item, Layout, Scene, single

RED, BLUE = Item("red", "circle"), Item("blue", "square")


def test_a_neighbour_is_another_scene() -> None:
    rng = random.Random(1)
    scenes = [in_order(draw_scene(rng)) for _ in range(500)]

    assert all(neighbour(said, rng) != said for said in scenes)


def test_even_anything_has_a_neighbour() -> None:
    said = Scene(Layout.ONE, (Item(),))

    assert neighbour(said, random.Random(1)).place is not None


def test_a_neighbour_may_swap_the_shapes_and_turn_the_relation() -> None:
    rng = random.Random(1)
    near = {neighbour(Scene(Layout.ROW, (RED, BLUE)), rng) for _ in range(300)}

    assert Scene(Layout.ROW, (BLUE, RED)) in near
    assert Scene(Layout.COLUMN, (RED, BLUE)) in near


def test_two_shapes_without_a_relation_are_one_scene_in_any_order() -> None:
    assert in_order(Scene(Layout.TWO, (RED, BLUE))) == in_order(Scene(Layout.TWO, (BLUE, RED)))


def test_a_partial_scene_fits_its_scene() -> None:
    rng = random.Random(1)
    scenes = [single("red", "star", "small", "left", "white") for _ in range(100)]

    assert all(fits(partial(said, rng), said) for said in scenes)


def test_what_is_said_otherwise_does_not_fit() -> None:
    said = single("red", "star", "small", "left", "white")

    assert not fits(Scene(Layout.ONE, (Item("blue", "star"),)), said)
    assert not fits(Scene(Layout.ROW, (RED, BLUE)), said)


def test_a_batch_follows_from_its_seed() -> None:
    first, again = draw_batch(7), draw_batch(7)

    assert first.second == again.second
    assert len(set(first.scenes)) == len(first.first) == len(first.partial)
    assert first.fitting.diagonal().all()


def test_matching_embeddings_cost_less_than_mixed_ones() -> None:
    rows = torch.eye(6)

    matching = contrast(rows, rows, rows, torch.eye(6, dtype=torch.bool))

    assert matching < contrast(rows, rows.roll(1, 0), rows, torch.eye(6, dtype=torch.bool))
