"""Attention without a mask, for every family."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

# tokens: of fewer, the calls cost more than the products; of more, scores that are written whole do
_FEWEST, _MOST = 64, 512


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Attend without a mask: three times [B, n, L, d] to [B, L, n·d], scaled by 1/sqrt(d)."""
    if not dropout and _is_slow_when_fused(query):
        attended = _attend_by_products(query, key, value)
    else:
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return rearrange(attended, "B n L d -> B L (n d)")


def _is_slow_when_fused(query: Tensor) -> bool:
    """Whether torch's fused attention is slow: on the CPU it computes bfloat16 as float32."""
    if query.dtype != torch.bfloat16 or query.device.type != "cpu":
        return False  # before the length: code that is compiled for all lengths must not ask it
    return _FEWEST <= query.shape[-2] <= _MOST


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # [B, n, L, L]
    attended: Tensor = scores.softmax(dim=-1) @ value
    return attended
