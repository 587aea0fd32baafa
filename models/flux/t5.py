"""T5's encoder: token ids in, one vector a token out.

Attribute names are the keys of published checkpoints. Computes what transformers' T5EncoderModel
does (5.23, models/t5/modeling_t5.py) without a mask: padding is read too, as Flux was trained.
Knows nothing about files and tokenizers.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from models.flux.part_configs import T5Config
from models.layers.adapters import Linear


class T5Encoder(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Stack(config)

    @property
    def blocks(self) -> list[nn.Module]:
        """Those that may be streamed, in the order in which they run."""
        return list(self.encoder.block)

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids [B, T] int64, on any device; returns [B, T, D]."""
        output: Tensor = self.encoder(self.shared(token_ids.to(self.shared.weight.device)))
        return output


class T5Stack(nn.Module):
    """The blocks, of which the first has the biases of all."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            T5Block(config, has_biases=index == 0) for index in range(config.num_layers)
        )
        self.final_layer_norm = T5Norm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        biases = None
        for block in self.block:
            x, biases = block(x, biases)
        output: Tensor = self.final_layer_norm(x)
        return output


class T5Block(nn.Module):
    def __init__(self, config: T5Config, has_biases: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([T5AttentionLayer(config, has_biases), T5FeedForward(config)])

    def forward(self, x: Tensor, biases: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B, T, D]; gives the biases back that it got, or its own."""
        attention, feed_forward = self.layer
        x, biases = attention(x, biases)
        return _finite(feed_forward(_finite(x))), biases


def _finite(x: Tensor) -> Tensor:
    """Keep what overflows in float16 within its range."""
    if x.dtype != torch.float16:
        return x
    largest = torch.finfo(torch.float16).max
    # below the largest: it is to be added to again
    limit = torch.where(torch.isinf(x).any(), largest - 1000, largest)
    return x.clamp(-limit, limit)


class T5Norm(nn.Module):
    """Divides by the root mean square, in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        mean_square = x.float().square().mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(mean_square + self.epsilon)).to(self.weight.dtype)


class T5AttentionLayer(nn.Module):
    def __init__(self, config: T5Config, has_biases: bool) -> None:
        super().__init__()
        self.layer_norm = T5Norm(config.d_model, config.layer_norm_epsilon)
        self.SelfAttention = T5Attention(config, has_biases)

    def forward(self, x: Tensor, biases: Tensor | None) -> tuple[Tensor, Tensor]:
        if biases is None:
            biases = self.SelfAttention.biases(x.shape[1])
        return x + self.SelfAttention(self.layer_norm(x), biases), biases


class T5Attention(nn.Module):
    """Attention whose scores are not scaled, but biased by the distance of the tokens."""

    def __init__(self, config: T5Config, has_biases: bool) -> None:
        super().__init__()
        self.config = config
        inner_width = config.num_heads * config.d_kv
        self.q = Linear(config.d_model, inner_width, bias=False)
        self.k = Linear(config.d_model, inner_width, bias=False)
        self.v = Linear(config.d_model, inner_width, bias=False)
        self.o = Linear(inner_width, config.d_model, bias=False)
        if has_biases:
            self.relative_attention_bias = nn.Embedding(
                config.relative_attention_num_buckets, config.num_heads
            )

    def forward(self, x: Tensor, biases: Tensor) -> Tensor:
        """x [B, T, D], biases [1, n, T, T] of the scores."""
        query, key, value = (
            rearrange(project(x), "B T (n d) -> B n T d", n=self.config.num_heads)
            for project in (self.q, self.k, self.v)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=biases, scale=1.0)
        output: Tensor = self.o(rearrange(attended, "B n T d -> B T (n d)"))
        return output

    def biases(self, num_tokens: int) -> Tensor:
        """Look the biases up, of each token (rows) for each other one: [1, n, T, T]."""
        positions = torch.arange(num_tokens, device=self.relative_attention_bias.weight.device)
        buckets = self._buckets(positions - positions[:, None])
        biases: Tensor = self.relative_attention_bias(buckets)
        return rearrange(biases, "rows T n -> 1 n rows T")

    def _buckets(self, distances: Tensor) -> Tensor:
        """Sort distances: the near ones each for itself, the far ones by their logarithm.

        Half of the buckets are for tokens before, half for those behind.
        """
        num_buckets = self.config.relative_attention_num_buckets // 2
        num_exact = num_buckets // 2
        far = distances.abs()
        octaves = math.log(self.config.relative_attention_max_distance / num_exact)
        growth = torch.log(far.float() / num_exact) / octaves
        by_logarithm = num_exact + (growth * (num_buckets - num_exact)).long()
        bucket = torch.where(far < num_exact, far, by_logarithm.clamp(max=num_buckets - 1))
        behind: Tensor = bucket + num_buckets * (distances > 0)
        return behind


class T5FeedForward(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.layer_norm = T5Norm(config.d_model, config.layer_norm_epsilon)
        self.DenseReluDense = T5GatedMLP(config.d_model, config.d_ff)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.DenseReluDense(self.layer_norm(x))
        return added


class T5GatedMLP(nn.Module):
    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.wi_0 = Linear(width, mlp_width, bias=False)
        self.wi_1 = Linear(width, mlp_width, bias=False)
        self.wo = Linear(mlp_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gated = self.wi_0.with_gelu(x, "tanh") * self.wi_1(x)
        output: Tensor = self.wo(gated.to(self.wo.weight.dtype))  # float32 beside float16
        return output
