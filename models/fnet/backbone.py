"""The FNet encoder: token ids in, features out, mixed by Fourier transforms.

Computes what KerasHub's `FNetBackbone` (keras_hub/src/models/f_net, 71453d0) computes, under its
arguments. There is no padding mask: padding is a token like any other.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbone import Backbone
from models.fnet.formats.keras_layers import list_layers
from models.keras.layers import KerasLayer
from models.layers.adapters import Embedding, Linear
from models.layers.arguments import NumLayers, Rate, Size, checked
from models.layers.dtypes import DtypeLike
from models.layers.packing import pack_linear_layers

LAYER_NORM_EPSILON = 1e-12


class ReversibleEmbedding(Embedding):
    """Token ids to their rows, and features back to one score per row."""

    def forward(self, x: Tensor, reverse: bool = False) -> Tensor:
        """Turn ids [B, L] into [B, L, D]; or, in reverse, features [..., D] into [..., rows]."""
        return F.linear(x, self.merged_weight()) if reverse else super().forward(x)


class Embeddings(nn.Module):
    """Add up what is known of a token: which, where, in which segment."""

    def __init__(
        self, vocabulary_size: int, max_sequence_length: int, num_segments: int, width: int
    ) -> None:
        super().__init__()
        self.token_embedding = ReversibleEmbedding(vocabulary_size, width)
        self.position_embedding = nn.Embedding(max_sequence_length, width)
        self.segment_embedding = Embedding(num_segments, width)
        self.layer_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        self.projection = Linear(width, width)

    def forward(self, token_ids: Tensor, segment_ids: Tensor) -> Tensor:
        """Two times [B, L] to [B, L, D]."""
        embedded = (
            self.token_embedding(token_ids)
            + self.position_embedding.weight[: token_ids.shape[1]]
            + self.segment_embedding(segment_ids)
        )
        projected: Tensor = self.projection(self.layer_norm(embedded))
        return projected


class EncoderLayer(nn.Module):
    """Fourier mixing and feed-forward, each normed after its residual."""

    def __init__(self, width: int, intermediate_width: int, dropout: float) -> None:
        super().__init__()
        self.mixing_layer_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        self.intermediate_dense = Linear(width, intermediate_width)
        self.output_dense = Linear(intermediate_width, width)
        self.output_dense.follows_gelu = True
        self.output_layer_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, L, D]."""
        x = self.mixing_layer_norm(x + mix(x))
        inner = self.intermediate_dense.with_gelu(x, "tanh")
        normed: Tensor = self.output_layer_norm(x + self.dropout(self.output_dense(inner)))
        return normed


def mix(x: Tensor) -> Tensor:
    """Take the real part of the Fourier transform over length and width, in float32."""
    mixed: Tensor = torch.fft.fft2(x.float(), dim=(-2, -1)).real
    return mixed.to(x.dtype)


class FNetBackbone(Backbone):
    """An FNet encoder of any size.

    Raises ValueError for arguments out of range.
    """

    keras_module = "keras_hub.src.models.f_net.f_net_backbone"
    keras_tasks = ("MaskedLM", "TextClassifier")

    @checked
    def __init__(
        self,
        vocabulary_size: Size,
        num_layers: NumLayers,
        hidden_dim: Size,
        intermediate_dim: Size,
        dropout: Rate = 0.1,
        max_sequence_length: Size = 512,
        num_segments: Size = 4,
        dtype: DtypeLike = None,
        trainable: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.dropout_rate = dropout
        self.max_sequence_length = max_sequence_length
        self.num_segments = num_segments

        self.embeddings = Embeddings(vocabulary_size, max_sequence_length, num_segments, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.encoder_layers = nn.ModuleList(
            EncoderLayer(hidden_dim, intermediate_dim, dropout) for _ in range(num_layers)
        )
        self.pooled_dense = Linear(hidden_dim, hidden_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                for parameter in module.parameters():
                    nn.init.normal_(parameter, std=0.02)
        self._finish(trainable, dtype)

    def forward(self, token_ids: Tensor, segment_ids: Tensor) -> dict[str, Tensor]:
        """Return the features of every token, and of the whole text.

        token_ids        [B, L] integers
        segment_ids      [B, L] integers
        sequence_output  [B, L, D]
        pooled_output    [B, D]     from the first token

        Raises ValueError where L is more than `max_sequence_length`.
        """
        length = token_ids.shape[1]
        if length > self.max_sequence_length:
            raise ValueError(
                f"token_ids has {length} tokens; at most {self.max_sequence_length} are allowed"
            )
        x = self.dropout(self.embeddings(token_ids, segment_ids))
        for layer in self.encoder_layers:
            x = layer(x)
        return {"sequence_output": x, "pooled_output": torch.tanh(self.pooled_dense(x[:, 0]))}

    @property
    def token_embedding(self) -> ReversibleEmbedding:
        return self.embeddings.token_embedding

    def pack(self, dtype: torch.dtype) -> None:
        """Lay the weights out for the CPU's products in this dtype: for inference there.

        Takes float32, bfloat16 and int8, where `onednn.multiplies` does; all but the products stays
        in float32, as which the backbone is to be loaded. Tokens of padding are alike until they
        are mixed, so the Fourier transform would add up the rounding of their projection: that
        product stays in float32.
        """
        pack_linear_layers(self.embeddings, torch.float32)
        pack_linear_layers(self.encoder_layers, dtype)

    def keras_layers(self) -> tuple[KerasLayer, ...]:
        return list_layers(self)

    def get_config(self) -> dict[str, object]:
        return super().get_config() | {
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "dropout": self.dropout_rate,
            "max_sequence_length": self.max_sequence_length,
            "num_segments": self.num_segments,
        }
