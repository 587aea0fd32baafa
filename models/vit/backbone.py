"""The vision transformer: images in, one feature vector per patch out.

Computes what KerasHub's `ViTBackbone` (keras_hub/src/models/vit, 71453d0) computes, under its
arguments. Knows nothing about labels or preprocessing.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from models.backbone import Backbone
from models.keras.layers import KerasLayer
from models.layers.adapters import Conv2d, Embedding, Linear
from models.layers.arguments import Epsilon, NumLayers, Rate, Size, checked
from models.layers.attention import attend
from models.layers.dtypes import DtypeLike
from models.layers.packing import pack_linear_layers
from models.vit.formats.keras_layers import list_layers

DataFormat = Literal["channels_last", "channels_first"]
ImageShape = Annotated[Sequence[Size | None], Field(min_length=3, max_length=3)]
PatchSize = Annotated[Sequence[Size], Field(min_length=2, max_length=2)]


class Patching(nn.Module):
    """Cut images into patches, embed them, put the class token first and add positions."""

    def __init__(
        self,
        num_channels: int,
        grid: tuple[int, int],
        patch_size: tuple[int, int],
        width: int,
        use_class_token: bool,
        use_patch_bias: bool,
    ) -> None:
        super().__init__()
        self.patch_embedding = Conv2d(
            num_channels, width, kernel_size=patch_size, stride=patch_size, bias=use_patch_bias
        )
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if use_class_token else None
        num_tokens = grid[0] * grid[1] + int(use_class_token)
        self.position_embedding = Embedding(num_tokens, width)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] to [B, L, D]."""
        x = rearrange(self.patch_embedding(images), "B D h w -> B (h w) D")
        if self.class_token is not None:
            x = torch.cat((self.class_token.expand(len(x), -1, -1), x), dim=1)
        embedded: Tensor = x + self.position_embedding.merged_weight()
        return embedded


class Attention(nn.Module):
    """Self-attention; the head width is rounded down where the heads do not divide the width."""

    def __init__(self, width: int, num_heads: int, has_bias: bool, dropout: float) -> None:
        super().__init__()
        inner = num_heads * (width // num_heads)
        self.num_heads, self.dropout = num_heads, dropout
        self.query = Linear(width, inner, bias=has_bias)
        self.key = Linear(width, inner, bias=has_bias)
        self.value = Linear(width, inner, bias=has_bias)
        self.attention_output = Linear(inner, width, bias=has_bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, L, D]."""
        x, rounded = self.query.as_input(x), self.query.rounded(x)  # once for all three
        query, key, value = (
            rearrange(project(x, rounded), "B L (n d) -> B n L d", n=self.num_heads)
            for project in (self.query, self.key, self.value)
        )
        attended = attend(query, key, value, self.dropout if self.training else 0.0)
        projected: Tensor = self.attention_output(attended)
        return projected


class EncoderBlock(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, backbone: "ViTBackbone") -> None:
        super().__init__()
        width, epsilon = backbone.hidden_dim, backbone.layer_norm_epsilon
        self.layer_norm_1 = nn.LayerNorm(width, eps=epsilon)
        self.mha = Attention(
            width, backbone.num_heads, backbone.use_mha_bias, backbone.attention_dropout
        )
        self.layer_norm_2 = nn.LayerNorm(width, eps=epsilon)
        self.dense_1 = Linear(width, backbone.mlp_dim, bias=backbone.use_mlp_bias)
        self.dense_2 = Linear(backbone.mlp_dim, width, bias=backbone.use_mlp_bias)
        self.dense_2.follows_gelu = True
        self.dropout = nn.Dropout(backbone.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, L, D]."""
        x = x + self.dropout(self.mha(self.layer_norm_1(x)))
        inner = self.dropout(self.dense_1.with_gelu(self.layer_norm_2(x)))
        added: Tensor = x + self.dropout(self.dense_2(inner))
        return added


class ViTBackbone(Backbone):
    """A vision transformer of any size.

    `image_shape` is (height, width, channels), or (channels, height, width) where `data_format` is
    channels_first; `patch_size` one number or (height, width).

    Raises ValueError for arguments out of range, for an image shape without height or width, for
    sides that the patch does not divide and for an unknown `data_format`.
    """

    keras_module = "keras_hub.src.models.vit.vit_backbone"
    keras_tasks = ("ImageClassifier",)

    @checked
    def __init__(
        self,
        image_shape: ImageShape,
        patch_size: Size | PatchSize,
        num_layers: NumLayers,
        num_heads: Size,
        hidden_dim: Size,
        mlp_dim: Size,
        dropout_rate: Rate = 0.0,
        attention_dropout: Rate = 0.0,
        layer_norm_epsilon: Epsilon = 1e-6,
        use_mha_bias: bool = True,
        use_mlp_bias: bool = True,
        use_class_token: bool = True,
        use_patch_bias: bool = True,
        data_format: DataFormat | None = None,
        dtype: DtypeLike = None,
        trainable: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.data_format = data_format or "channels_last"
        self.patch_size = _pair(patch_size)
        self.image_shape = tuple(image_shape)
        num_channels, grid = _grid(self.image_shape, self.patch_size, self.data_format)
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.mlp_dim = mlp_dim
        self.dropout_rate = dropout_rate
        self.attention_dropout = attention_dropout
        self.layer_norm_epsilon = layer_norm_epsilon
        self.use_mha_bias = use_mha_bias
        self.use_mlp_bias = use_mlp_bias
        self.use_class_token = use_class_token
        self.use_patch_bias = use_patch_bias

        self.patching = Patching(
            num_channels, grid, self.patch_size, hidden_dim, use_class_token, use_patch_bias
        )
        self.dropout = nn.Dropout(dropout_rate)
        self.encoder_layers = nn.ModuleList(EncoderBlock(self) for _ in range(num_layers))
        self.layer_norm = nn.LayerNorm(hidden_dim, eps=layer_norm_epsilon)
        self._initialise()
        self._finish(trainable, dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of every token.

        images   [B, H, W, C]  or [B, C, H, W] where `data_format` is channels_first; any number
        returns  [B, L, D]     after the last norm; the class token, where there is one, is first

        Raises ValueError for images of another shape than `image_shape`.
        """
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"images are {list(images.shape)}; after the batch {list(self.image_shape)} "
                "is allowed"
            )
        x = images.to(self.layer_norm.weight.dtype)
        if self.data_format == "channels_last":
            x = rearrange(x, "B H W C -> B C H W")
        x = self.dropout(self.patching(x))
        for block in self.encoder_layers:
            x = block(x)
        features: Tensor = self.layer_norm(x)
        return features

    def pack(self, dtype: torch.dtype) -> None:
        """Lay the weights out for the CPU's products in this dtype: for inference there.

        Takes float32, bfloat16 and int8, where `onednn.multiplies` does; all but the products stays
        in float32, as which the backbone is to be loaded.
        """
        pack_linear_layers(self.encoder_layers, dtype)

    def keras_layers(self) -> tuple[KerasLayer, ...]:
        return list_layers(self)

    def get_config(self) -> dict[str, object]:
        # KerasHub forgets the data format, and then cannot read its own preset
        is_last = self.data_format == "channels_last"
        data_format = {} if is_last else {"data_format": self.data_format}
        return (
            super().get_config()
            | data_format
            | {
                "image_shape": list(self.image_shape),
                "patch_size": list(self.patch_size),
                "num_layers": self.num_layers,
                "num_heads": self.num_heads,
                "hidden_dim": self.hidden_dim,
                "mlp_dim": self.mlp_dim,
                "dropout_rate": self.dropout_rate,
                "attention_dropout": self.attention_dropout,
                "layer_norm_epsilon": self.layer_norm_epsilon,
                "use_mha_bias": self.use_mha_bias,
                "use_mlp_bias": self.use_mlp_bias,
                "use_class_token": self.use_class_token,
                "use_patch_bias": self.use_patch_bias,
            }
        )

    def _initialise(self) -> None:
        """Start training from Glorot kernels, zero biases and small positions."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.patching.position_embedding.weight, std=0.02)
        if self.patching.class_token is not None:
            nn.init.normal_(self.patching.class_token, std=0.05)


def _pair(patch_size: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(patch_size, int):
        return patch_size, patch_size
    height, width = patch_size
    return height, width


def _grid(
    image_shape: tuple[int | None, ...], patch_size: tuple[int, int], data_format: str
) -> tuple[int, tuple[int, int]]:
    """Return the number of channels and the patches per column and row."""
    is_last = data_format == "channels_last"
    height, width, channels = image_shape if is_last else (*image_shape[1:], image_shape[0])
    if height is None or width is None or channels is None:
        raise ValueError(f"image_shape {image_shape} must state height, width and channels")
    for side, pixels, patch in (
        ("height", height, patch_size[0]),
        ("width", width, patch_size[1]),
    ):
        if pixels % patch:
            raise ValueError(f"image {side} {pixels} is not divisible by patch size {patch}")
    return channels, (height // patch_size[0], width // patch_size[1])
