"""Attention, against its formula in float64."""

import pytest
import torch
from einops import rearrange

from models.layers.attention import attend


@pytest.mark.parametrize(
    ("dtype", "length", "tolerance"),
    [
        (torch.float32, 197, 1e-5),
        (torch.bfloat16, 50, 2e-2),  # fused
        (torch.bfloat16, 197, 2e-2),  # by products
        (torch.bfloat16, 600, 2e-2),  # fused
    ],
)
def test_attention_is_the_softmax_of_scaled_products(
    dtype: torch.dtype, length: int, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, length, 16, generator=generator).to(dtype) for _ in range(3)
    )

    attended = attend(query, key, value)

    scores = query.double() @ key.double().transpose(-1, -2) / 16**0.5
    expected = rearrange(scores.softmax(dim=-1) @ value.double(), "B n L d -> B L (n d)")
    assert attended.dtype == dtype
    torch.testing.assert_close(attended.double(), expected, atol=tolerance, rtol=2e-2)
