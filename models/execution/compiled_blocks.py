"""Blocks compiled one by one, as diffusers' `compile_repeated_blocks`.

Blocks of one class share what was compiled for the first, so a deep model costs no more time than a
shallow one. Compiled for all sizes at once; what comes later and does not fit what was compiled,
such as blocks that were given a LoRA, runs eagerly: no request waits for the compiler. The number
of torch's threads is part of what fits.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn

NUM_ROWS = (1, 2)  # the compiler writes code of its own for 1


def compile_modules(
    modules: Sequence[nn.Module],
    call: Callable[[int], object],
    backend: str = "inductor",
    num_rows: Sequence[int] = NUM_ROWS,
) -> None:
    """Compile modules by what `call` does with numbers of rows.

    Raises what the compiler raises; then the modules are as they were.
    """
    for module in modules:
        module.compile(backend=backend, fullgraph=True, dynamic=True)
    try:
        for number in num_rows:
            call(number)
    except Exception:
        undo_compiling(modules)
        raise
    for module in modules:
        # runs what was compiled, and compiles no more; a stance of torch would be the process's,
        # and let blocks in use be compiled while others are loaded
        module._compiled_call_impl = torch._dynamo.run(module._call_impl)


def undo_compiling(modules: Iterable[nn.Module]) -> None:
    """Let modules run eagerly."""
    for module in modules:
        module._compiled_call_impl = None


def repeated_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Give the members of the outermost lists of modules."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from repeated_blocks(child)


def has_hooks(module: nn.Module) -> bool:
    """Whether something happens around its forward, such as the copying of streamed weights."""
    return bool(module._forward_pre_hooks or module._forward_hooks)
