"""Where the parts of a Flux pipeline lie, for devices that do not hold all of it, and their sizes.

Free of torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the parts lie, and in what form; the default is all on the device, as loaded.

    float8               the matrices of the transformer's blocks are kept in float8 (e4m3fn, one
                         scale per row) and cast layer by layer; a loss, and half of the memory
    num_streamed_blocks  of the transformer's double and single blocks, the last so many: kept in
                         host memory, pinned where the device is CUDA's, and copied to the device
                         one ahead of the computation; no loss
    streams_text_encoder  T5's blocks likewise, all of them
    tile_from            pixels of the longer side from which the autoencoder decodes in tiles;
                         None: never

    Raises ValueError for a number out of range.
    """

    float8: bool = False
    num_streamed_blocks: int = 0
    streams_text_encoder: bool = False
    tile_from: int | None = None

    def __post_init__(self) -> None:
        if self.num_streamed_blocks < 0:
            raise ValueError(f"num_streamed_blocks {self.num_streamed_blocks} is less than 0")
        if self.tile_from is not None and self.tile_from < 1:
            raise ValueError(f"tile_from {self.tile_from} is less than 1 pixel")


RESIDENT = Placement()


@dataclass(frozen=True, slots=True)
class FluxSizes:
    """Bytes of the parts, blocks in the order in which they run, and what activations depend on.

    float8_block_bytes  the same blocks under `Placement(float8=True)`
    is_float8           whether the checkpoint stores its transformer in float8
    num_parameters      of the whole pipeline
    """

    block_bytes: tuple[int, ...]
    float8_block_bytes: tuple[int, ...]
    other_transformer_bytes: int
    clip_bytes: int
    t5_block_bytes: tuple[int, ...]
    other_t5_bytes: int
    autoencoder_bytes: int
    hidden_size: int
    num_heads: int
    mlp_ratio: float
    autoencoder_widths: tuple[int, ...]
    is_float8: bool
    num_parameters: int
