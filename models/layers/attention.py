"""Attention without a mask, for every family."""

from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Attend without a mask: three times [B, n, L, d] to [B, L, n·d], scaled by 1/sqrt(d)."""
    attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return rearrange(attended, "B n L d -> B L (n d)")
