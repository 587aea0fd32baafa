"""The Muon optimizer of the trainings."""

import pytest
import torch
from torch import nn

from training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(24, 24), (8, 40), (40, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert orthogonalised(matrix).shape == shape
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_the_first_step_goes_against_the_gradient_whatever_its_size() -> None:
    gradient = torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    steps = []
    for scale in (1.0, 1000.0):
        weight = nn.Parameter(torch.zeros(6, 6))
        weight.grad = gradient * scale
        Muon([weight], lr=0.1, weight_decay=0.0).step()
        steps.append(weight.detach())
    assert (steps[0] * gradient).sum() < 0
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-4, atol=1e-6)


def test_a_matrix_is_fitted() -> None:
    generator = torch.Generator().manual_seed(3)
    wanted, weight = torch.randn(4, 4, generator=generator), nn.Parameter(torch.zeros(4, 4))
    optimizer = Muon([weight], lr=0.05, weight_decay=0.0)
    for _ in range(400):
        optimizer.zero_grad()
        (weight - wanted).square().sum().backward()
        optimizer.step()
    assert (weight - wanted).abs().max() < 0.1
