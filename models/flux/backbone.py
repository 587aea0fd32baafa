"""The Flux transformer: noisy image patches and text in, velocities out.

Computes what black-forest-labs/flux (src/flux/model.py, commit 802fb47) computes, under the
constructor and call arguments of KerasHub's `FluxBackbone`. Knows nothing about schedules.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from models.backbone import Backbone
from models.execution.block_cache import BlockCache, run_others
from models.flux.formats.keras_layers import list_layers
from models.flux.layers import (
    SINUSOID_WIDTH,
    BlockShape,
    DoubleStreamBlock,
    GeluApproximate,
    LastLayer,
    MLPEmbedder,
    SingleStreamBlock,
    rotation,
    sinusoids,
)
from models.keras.layers import KerasLayer
from models.layers.adapters import Linear
from models.layers.arguments import AxisSizes, Factor, NumLayers, Shape, Size, checked
from models.layers.dtypes import DtypeLike


class FluxBackbone(Backbone):
    """A FLUX.1 transformer of any size.

    `image_shape` … `y_shape` are input shapes without the batch axis; only the last entries of
    `text_shape` (T5 width) and `y_shape` (CLIP width) decide about weights. `gelu_approximate` is
    the GELU of the double blocks: "none" is KerasHub's exact one, "tanh" the original's.

    Raises ValueError for arguments out of range, where `hidden_size` does not divide by
    `num_heads`, or `axes_dim` does not add up to the head width or holds an odd width.
    """

    keras_module = "keras_hub.src.models.flux.flux_model"
    keras_tasks = ("TextToImage",)

    @checked
    def __init__(
        self,
        input_channels: Size,
        hidden_size: Size,
        mlp_ratio: Factor,
        num_heads: Size,
        depth: NumLayers,
        depth_single_blocks: NumLayers,
        axes_dim: AxisSizes,
        theta: Factor,
        use_bias: bool,
        guidance_embed: bool = False,
        image_shape: Shape = (None, 64),
        text_shape: Shape = (None, 4096),
        image_ids_shape: Shape = (None, 3),
        text_ids_shape: Shape = (None, 3),
        y_shape: Shape = (768,),
        dtype: DtypeLike = None,
        trainable: bool = True,
        name: str | None = None,
        gelu_approximate: GeluApproximate = "none",
    ) -> None:
        super().__init__(name)
        _check(hidden_size, num_heads, axes_dim)
        text_width, y_width = text_shape[-1], y_shape[-1]
        if text_width is None or y_width is None:
            raise ValueError(
                f"the last entries of text_shape {tuple(text_shape)} and y_shape {tuple(y_shape)} "
                "must be numbers"
            )
        self.input_channels = input_channels
        self.hidden_size = hidden_size
        self.mlp_ratio = mlp_ratio
        self.num_heads = num_heads
        self.depth = depth
        self.depth_single_blocks = depth_single_blocks
        self.axes_dim = tuple(axes_dim)
        self.theta = theta
        self.use_bias = use_bias
        self.guidance_embed = guidance_embed
        self.image_shape = tuple(image_shape)
        self.text_shape = tuple(text_shape)
        self.image_ids_shape = tuple(image_ids_shape)
        self.text_ids_shape = tuple(text_ids_shape)
        self.y_shape = tuple(y_shape)
        self.gelu_approximate = gelu_approximate

        shape = BlockShape(
            hidden_size, num_heads, int(hidden_size * mlp_ratio), use_bias, gelu_approximate
        )
        self.img_in = Linear(input_channels, hidden_size)
        self.time_in = MLPEmbedder(SINUSOID_WIDTH, hidden_size)
        self.vector_in = MLPEmbedder(y_width, hidden_size)
        self.guidance_in = MLPEmbedder(SINUSOID_WIDTH, hidden_size) if guidance_embed else None
        self.txt_in = Linear(text_width, hidden_size)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(shape) for _ in range(depth))
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(shape) for _ in range(depth_single_blocks)
        )
        self.final_layer = LastLayer(hidden_size, input_channels)
        self._finish(trainable, dtype)

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in the order in which they run, the double ones first."""
        return [*self.double_blocks, *self.single_blocks]

    def pack(self, dtype: torch.dtype) -> None:
        """Lay weights out for the CPU's products in this dtype: for inference there.

        Takes float32 and bfloat16, where `onednn.multiplies` does; what the products are added to,
        and norms, stay in float32, as which the backbone is to be loaded. What steers the blocks is
        packed like them: packed products are the same for any number of rows, and by bfloat16 the
        last bit of others would become a visible difference between alone and in company.
        """
        steering = (self.time_in, self.vector_in, self.guidance_in)
        for module in (*steering, *self.blocks, self.final_layer.adaLN_modulation):
            for layer in () if module is None else module.modules():
                if isinstance(layer, Linear):
                    layer.pack(dtype)

    def forward(
        self,
        image: Tensor,
        image_ids: Tensor,
        text: Tensor,
        text_ids: Tensor,
        y: Tensor,
        timesteps: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity, each row at its own noise level.

        image      [B, S, 64]    noisy latents, patchified
        image_ids  [B, S, 3]     position of each patch: 0, row, column
        text       [B, T, 4096]  T5 features
        text_ids   [B, T, 3]     zeros
        y          [B, 768]      CLIP pooled text
        timesteps  [B] float32   sigma in [0, 1]; 1 is pure noise
        guidance   [B] float32   distilled guidance scale, unscaled; without effect where the
                                 backbone has no guidance embedding
        returns    [B, S, 64]    velocity

        Raises ValueError where the backbone has a guidance embedding and `guidance` is None.
        """
        rotations = self.rotations(image_ids, text_ids)
        return self.predict(image, text, y, timesteps, guidance, rotations)

    def rotations(self, image_ids: Tensor, text_ids: Tensor) -> Tensor:
        """Turn positions [B, S, 3] and [B, T, 3] into what `predict` takes, [B, T+S, d/2, 2]."""
        return rotation(torch.cat((text_ids, image_ids), dim=1), self.axes_dim, self.theta)

    def predict(
        self,
        image: Tensor,
        text: Tensor,
        y: Tensor,
        timesteps: Tensor,
        guidance: Tensor | None,
        rotations: Tensor,
        caches: Sequence[BlockCache] | None = None,
    ) -> Tensor:
        """Do what `forward` does, with `rotations` [B or 1, T+S, d/2, 2] in the place of positions.

        Who asks again and again about the same positions turns them into rotations once. With
        `caches`, one a row, rows that hardly change skip all blocks but the first.
        """
        conditioning = self._conditioning(timesteps, guidance, y)
        rotations = rotations[:, :, None, None]  # the same for queries and keys of all heads
        image, text = self.img_in(image), self.txt_in(text)
        run = self._run_blocks if caches is None else partial(self._run_cached, caches)
        image = run(self.double_blocks, image, text, conditioning, rotations)
        velocity: Tensor = self.final_layer(image, conditioning)
        return velocity

    def _run_blocks(
        self,
        double_blocks: Iterable[nn.Module],
        image: Tensor,
        text: Tensor,
        conditioning: Tensor,
        rotations: Tensor,
    ) -> Tensor:
        """Run double blocks, then all single ones: image and text to [B, S, D]."""
        for double_block in double_blocks:
            image, text = double_block(image, text, conditioning, rotations)
        joined = torch.cat((text, image), dim=1)  # [B, T+S, D]
        for single_block in self.single_blocks:
            joined = single_block(joined, conditioning, rotations)
        return joined[:, text.shape[1] :]

    def _run_cached(
        self,
        caches: Sequence[BlockCache],
        double_blocks: Iterable[nn.Module],
        image: Tensor,
        text: Tensor,
        conditioning: Tensor,
        rotations: Tensor,
    ) -> Tensor:
        """Do what `_run_blocks` does, all but the first block only for rows that change."""
        first, *others = double_blocks
        after, text = first(image, text, conditioning, rotations)

        def run(rows: Tensor | None) -> Tensor:
            if rows is None:
                return self._run_blocks(others, after, text, conditioning, rotations)
            own = rotations if len(rotations) == 1 else rotations[rows]
            return self._run_blocks(others, after[rows], text[rows], conditioning[rows], own)

        return run_others(caches, image, after, run)

    def _conditioning(self, timesteps: Tensor, guidance: Tensor | None, y: Tensor) -> Tensor:
        """Add up the embeddings that steer every modulation, [B, D]."""
        dtype = self.img_in.weight.dtype
        conditioning: Tensor = self.time_in(sinusoids(timesteps).to(dtype)) + self.vector_in(y)
        if self.guidance_in is not None:
            if guidance is None:
                raise ValueError("this backbone embeds guidance: guidance [B] is missing")
            conditioning = conditioning + self.guidance_in(sinusoids(guidance).to(dtype))
        return conditioning

    def keras_layers(self) -> tuple[KerasLayer, ...]:
        return list_layers(self)

    def get_config(self) -> dict[str, object]:
        # KerasHub knows only its own, exact GELU, and ignores the key
        is_exact = self.gelu_approximate == "none"
        gelu = {} if is_exact else {"gelu_approximate": self.gelu_approximate}
        return (
            super().get_config()
            | gelu
            | {
                "input_channels": self.input_channels,
                "hidden_size": self.hidden_size,
                "mlp_ratio": self.mlp_ratio,
                "num_heads": self.num_heads,
                "depth": self.depth,
                "depth_single_blocks": self.depth_single_blocks,
                "axes_dim": list(self.axes_dim),
                "theta": self.theta,
                "use_bias": self.use_bias,
                "guidance_embed": self.guidance_embed,
                "image_shape": list(self.image_shape),
                "text_shape": list(self.text_shape),
                "image_ids_shape": list(self.image_ids_shape),
                "text_ids_shape": list(self.text_ids_shape),
                "y_shape": list(self.y_shape),
            }
        )


def _check(hidden_size: int, num_heads: int, axes_dim: Sequence[int]) -> None:
    if hidden_size % num_heads:
        raise ValueError(f"hidden_size {hidden_size} does not divide by num_heads {num_heads}")
    head_width = hidden_size // num_heads
    if sum(axes_dim) != head_width:
        raise ValueError(
            f"axes_dim {list(axes_dim)} adds up to {sum(axes_dim)}, "
            f"not to the head width {head_width} (hidden_size / num_heads)"
        )
    if any(width % 2 for width in axes_dim):
        raise ValueError(f"axes_dim {list(axes_dim)} holds an odd width; rotations need pairs")
