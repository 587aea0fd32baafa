"""The legend of shapes, and the layers that more than one family uses.

B batch · C channels · H W pixels · h w latent grid (H/8, W/8) · S image patches (h/2 · w/2) ·
T text tokens · L any sequence · D model width · n heads · d head width (D = n·d) · K classes.
"""

from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Attend without a mask: three times [B, n, L, d] to [B, L, n·d], scaled by 1/sqrt(d)."""
    attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return rearrange(attended, "B n L d -> B L (n d)")
