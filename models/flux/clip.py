"""CLIP's text encoder: token ids in, one vector a text out.

Attribute names are the keys of published checkpoints, without their prefix `text_model.`. Computes
what transformers' CLIPTextModel does (5.23, models/clip/modeling_clip.py). Knows nothing about
files and tokenizers.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from models.flux.part_configs import ClipConfig
from models.layers.adapters import Linear

# What configurations said before transformers 4.31, whatever the tokenizer's end token was
UNTRUE_EOS_TOKEN_ID = 2


class ClipTextEncoder(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.eos_token_id = config.eos_token_id
        self.embeddings = ClipEmbeddings(config)
        self.encoder = ClipLayers(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    @property
    def max_tokens(self) -> int:
        return self.embeddings.position_embedding.num_embeddings

    def forward(self, token_ids: Tensor) -> Tensor:
        """Give the features of each text's end token, which has seen all before it.

        token_ids  [B, T] int64, on any device
        returns    [B, D]
        """
        token_ids = token_ids.to(self.final_layer_norm.weight.device)
        sequence_output = self.encoder(self.embeddings(token_ids))
        ends = self._ends(token_ids)
        pooled = sequence_output[torch.arange(len(ends), device=ends.device), ends]
        output: Tensor = self.final_layer_norm(pooled)
        return output

    def _ends(self, token_ids: Tensor) -> Tensor:
        """Find where the texts end, [B]: at the first end token."""
        if self.eos_token_id == UNTRUE_EOS_TOKEN_ID:
            return token_ids.argmax(dim=-1)  # the end token is OpenAI's last
        return (token_ids == self.eos_token_id).int().argmax(dim=-1)


class ClipEmbeddings(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, token_ids: Tensor) -> Tensor:
        embedded: Tensor = self.token_embedding(token_ids)  # [B, T, D]
        return embedded + self.position_embedding.weight[: token_ids.shape[-1]]


class ClipLayers(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class ClipLayer(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = ClipAttention(config.hidden_size, config.num_attention_heads)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = ClipMLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        added: Tensor = x + self.mlp(self.layer_norm2(x))
        return added


class ClipAttention(nn.Module):
    """Each token attends to itself and those before it."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            rearrange(project(x), "B T (n d) -> B n T d", n=self.num_heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        projected: Tensor = self.out_proj(rearrange(attended, "B n T d -> B T (n d)"))
        return projected


class ClipMLP(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.activation = config.hidden_act
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if self.activation == "quick_gelu":
            hidden = hidden * torch.sigmoid(1.702 * hidden)
        else:
            hidden = F.gelu(hidden)
        output: Tensor = self.fc2(hidden)
        return output
