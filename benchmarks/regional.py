"""Compile the blocks that a model repeats, each by itself, as diffusers' `compile_repeated_blocks`.

Blocks of one class share what was compiled for the first, so a deep model costs no more time than a
shallow one. Knows nothing about any model.
"""

from collections.abc import Iterator

from torch import nn


def compile_blocks(module: nn.Module, backend: str) -> None:
    for block in repeated_blocks(module):
        block.compile(backend=backend, fullgraph=True, dynamic=False)


def repeated_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Give the members of the outermost lists of modules."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from repeated_blocks(child)
