"""Turn the levers of an execution on, those that can be had.

What cannot be had is logged and left out: the backbone runs without it, also where it fails later.
Once, before the backbone is used: blocks are compiled here, and never while requests wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.execution import float8_products
from models.execution.compiled_blocks import compile_modules, has_hooks, repeated_blocks
from models.execution.cuda_graphs import GraphedCall
from models.execution.execution import Execution
from models.execution.fallback import FallbackCall, report_off, report_on


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be run by levers.

    backbone        in evaluation mode, its adapters attached
    method          of it, by which it is called
    call            calls it with so many rows of any inputs, gives a tensor of its output
    device          where it computes
    compile_backend  of torch.compile
    """

    backbone: nn.Module
    method: str
    call: Callable[[int], Tensor]
    device: torch.device
    compile_backend: str = "inductor"


def apply(subject: Subject, execution: Execution) -> None:
    """Let a backbone run by the levers that all backbones have."""
    blocks = list(repeated_blocks(subject.backbone))
    if execution.float8_products:
        _multiply_in_float8(subject, blocks)
    if execution.compiles:
        _compile(subject, blocks)
    if execution.cuda_graphs:
        _capture(subject, blocks)
    if execution.float8_products or execution.compiles or execution.cuda_graphs:
        call = FallbackCall(subject.backbone, subject.method, blocks)
        setattr(subject.backbone, subject.method, call)


def _multiply_in_float8(subject: Subject, blocks: Sequence[nn.Module]) -> None:
    streamed = {layer for block in blocks if has_hooks(block) for layer in block.modules()}
    # the weights of streamed blocks lie where they are copied from: they stay as they are loaded
    layers = [
        layer
        for layer in float8_products.layers_for(blocks)
        if layer.is_float8 or layer not in streamed
    ]
    try:
        float8_products.check_products(subject.device, float8_products.dtype_of(layers))
        expected = subject.call(1)
        turned = float8_products.turn_on(layers)
        found = float8_products.check_output(subject.call(1), expected)
    except Exception as error:  # wrong, not to be had, or no memory for it
        float8_products.turn_off(layers)
        is_ours = isinstance(error, float8_products.Float8Error)
        report_off("float8_products", str(error) if is_ours else error)
    else:
        report_on("float8_products", f"layers={len(turned)} difference={found:.4f}")


def _compile(subject: Subject, blocks: Sequence[nn.Module]) -> None:
    free = [block for block in blocks if not has_hooks(block)]
    if len(free) < len(blocks):
        report_off("compiles", f"{len(blocks) - len(free)} of {len(blocks)} blocks are streamed")
    if not free:
        return
    try:
        compile_modules(free, subject.call, subject.compile_backend)
    except Exception as error:  # a compiler may fail in any way
        report_off("compiles", error)
    else:
        report_on("compiles", f"blocks={len(free)}")


def _capture(subject: Subject, blocks: Sequence[nn.Module]) -> None:
    if subject.device.type != "cuda":
        report_off("cuda_graphs", f"the device is {subject.device.type}")
    elif any(map(has_hooks, blocks)):
        report_off("cuda_graphs", "blocks are streamed")
    else:
        graphed = GraphedCall(subject.backbone, getattr(subject.backbone, subject.method))
        setattr(subject.backbone, subject.method, graphed)
        report_on("cuda_graphs")
