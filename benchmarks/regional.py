"""Compile the blocks that a peer's model repeats, each by itself, once for each size."""

from torch import nn

from models.execution.compiled_blocks import repeated_blocks


def compile_blocks(module: nn.Module, backend: str) -> None:
    """Do what diffusers' `compile_repeated_blocks` does."""
    for block in repeated_blocks(module):
        block.compile(backend=backend, fullgraph=True, dynamic=False)
