"""Which levers a model is run with.

Free of torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Execution:
    """The levers of a model; the default is torch's own eager execution.

    compiles         each block by torch.compile, for all sizes; no loss but the rounding
    channels_last    the autoencoder's convolutions, of a Flux model; no loss but the rounding
    cuda_graphs      the whole backbone is captured for the shapes that come again and replayed; no
                     loss, and memory for each shape
    float8_products  the products of the blocks in float8, a scale for each row; a loss
    block_cache      threshold of the first-block cache of a Flux model, in shares of change, such
                     as 0.1; None: off; a loss

    Raises ValueError for a threshold below 0, and for cuda_graphs with a block_cache: a graph
    decides nothing.
    """

    compiles: bool = False
    channels_last: bool = False
    cuda_graphs: bool = False
    float8_products: bool = False
    block_cache: float | None = None

    def __post_init__(self) -> None:
        if self.block_cache is not None and self.block_cache < 0:
            raise ValueError(f"block_cache {self.block_cache} is less than 0")
        if self.block_cache is not None and self.cuda_graphs:
            raise ValueError("cuda_graphs and block_cache exclude each other; choose one")


EAGER = Execution()
LOSSLESS = Execution(compiles=True, channels_last=True)


def default_for(device: str) -> Execution:
    """Give what loses nothing: on CUDA some levers, elsewhere none."""
    return LOSSLESS if device.partition(":")[0] == "cuda" else EAGER
