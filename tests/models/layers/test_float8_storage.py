"""Matrices kept in float8: what they lose, and what they do not."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.adapters import Adapter, Linear, merged_state
from models.layers.float8_storage import Float8Matrix


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_rounded_matrix_is_near_and_half_of_bfloat16() -> None:
    matrix = random(64, 48).bfloat16()
    rounded = Float8Matrix.of(matrix)
    back = rounded.to_dtype(torch.float32)
    assert F.cosine_similarity(back.flatten(), matrix.float().flatten(), dim=0) > 0.999
    assert rounded.values.nbytes == matrix.nbytes // 2


def test_each_row_is_rounded_by_its_own_largest_value() -> None:
    sizes = torch.tensor([[1e-4], [1.0], [1e4]])
    matrix = random(3, 48) * sizes
    off = (Float8Matrix.of(matrix).to_dtype(torch.float32) - matrix).abs() / sizes
    assert off.max() < 0.15  # half a step of the largest, of about 3


def test_a_row_of_zeros_stays_one() -> None:
    matrix = torch.stack((torch.zeros(4), torch.ones(4)))
    torch.testing.assert_close(Float8Matrix.of(matrix).to_dtype(torch.float32), matrix)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_stood_for_is_rounded_once(dtype: torch.dtype) -> None:
    rounded = Float8Matrix.of(random(64, 48))
    meant = rounded.values.float() * rounded.scale
    assert torch.equal(rounded.to_dtype(dtype), meant.to(dtype))


@pytest.fixture
def layers() -> tuple[Linear, nn.Linear]:
    """A layer kept in float8, and torch's own with the numbers that it stands for."""
    kept, plain = Linear(6, 4), nn.Linear(6, 4)
    rounded = Float8Matrix.of(random(4, 6))
    kept.keep_in_float8(rounded)
    plain.load_state_dict(
        {"weight": rounded.to_dtype(torch.float32), "bias": kept.bias.detach().clone()}
    )
    return kept, plain


def test_a_layer_computes_with_what_its_weight_stands_for(
    layers: tuple[Linear, nn.Linear],
) -> None:
    kept, plain = layers
    assert torch.equal(kept(random(3, 6)), plain(random(3, 6)))


def test_an_adapter_is_added_to_the_output(layers: tuple[Linear, nn.Linear]) -> None:
    kept, plain = layers
    a, b, x = random(2, 6, seed=1), random(4, 2, seed=2), random(3, 6, seed=3)
    kept.add_adapter(Adapter(a, b))
    torch.testing.assert_close(kept(x), plain(x) + x @ a.T @ b.T)


def test_a_merged_state_has_the_numbers_and_torchs_names(
    layers: tuple[Linear, nn.Linear],
) -> None:
    kept, plain = layers
    torch.testing.assert_close(merged_state(kept), dict(plain.state_dict()), atol=0, rtol=0)
