"""Norms with gamma and beta against the layer that took them over."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.norm_folding import Fold

WIDTH, IN_WIDTH = 5, 7


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def fold() -> Fold:
    affines = [random(WIDTH, seed=seed) for seed in range(4)]
    return Fold.of(affines)


@pytest.mark.parametrize("num_parts", [2, 3], ids=["without gates", "with gates"])
def test_a_fold_computes_what_norm_and_modulation_compute(fold: Fold, num_parts: int) -> None:
    weight = random(2 * num_parts * WIDTH, IN_WIDTH, seed=5)
    bias = random(2 * num_parts * WIDTH, seed=6)
    conditioning, x = random(IN_WIDTH, seed=7), random(3, WIDTH, seed=8)
    said = F.linear(conditioning, weight, bias).reshape(2, num_parts, WIDTH)
    folded = F.linear(conditioning, fold.to_ours(weight), fold.bias_to_ours(bias)).reshape(
        2, num_parts, WIDTH
    )
    for branch in range(2):
        normed = fold.gamma[branch] * x + fold.beta[branch]
        expected = (1 + said[branch, 1]) * normed + said[branch, 0]
        torch.testing.assert_close((1 + folded[branch, 1]) * x + folded[branch, 0], expected)
        assert torch.equal(folded[branch, 2:], said[branch, 2:])


def test_what_is_folded_comes_back(fold: Fold) -> None:
    weight, bias = random(6 * WIDTH, IN_WIDTH, seed=5), random(6 * WIDTH, seed=6)
    torch.testing.assert_close(fold.to_keras(fold.to_ours(weight)), weight)
    torch.testing.assert_close(fold.bias_to_keras(fold.bias_to_ours(bias)), bias)


def test_a_gamma_of_zero_still_computes_the_same_after_a_round_trip() -> None:
    fold = Fold.of([torch.zeros(WIDTH), random(WIDTH, seed=1)])
    ours = fold.to_ours(random(3 * WIDTH, IN_WIDTH, seed=2))
    torch.testing.assert_close(fold.to_ours(fold.to_keras(ours)), ours)


def test_half_precision_is_folded_in_float32() -> None:
    fold = Fold.of([each.bfloat16() for each in (random(WIDTH, seed=1), random(WIDTH, seed=2))])
    assert fold.to_ours(random(3 * WIDTH, IN_WIDTH, seed=3).bfloat16()).dtype == torch.float32


def test_a_fold_that_changes_nothing_says_so(fold: Fold) -> None:
    assert Fold.of([torch.ones(WIDTH), torch.zeros(WIDTH)]).is_trivial
    assert not fold.is_trivial
    assert not Fold.of([torch.ones(WIDTH), torch.full((WIDTH,), 0.1)]).is_trivial
