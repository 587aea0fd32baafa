"""In what a model of the configuration computes: its dtype, that of its products, its levers."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from models.errors import PresetError
from models.execution.execution import Execution, default_for
from models.flux.placement import Placement
from models.layers.onednn import multiplies
from models.layers.packing import has_fast_bfloat16
from worker.contract.jobs import Task
from worker.model_specs import ModelSpec


def dtype_of(spec: ModelSpec) -> torch.dtype | None:
    return None if spec.dtype is None else cast(torch.dtype, getattr(torch, spec.dtype))


def check_int8(spec: ModelSpec, device: str) -> None:
    """Raise PresetError for a model that is to compute in int8 where that is not fast."""
    if spec.dtype != "int8":
        return
    if device != "cpu":
        raise PresetError(f"model {spec.name}: its device is {device}; dtype int8 is for cpu alone")
    if not multiplies(torch.int8):
        raise PresetError(
            f"model {spec.name}: dtype int8 needs a processor with AVX-512 VNNI: on this one it "
            "would be slower than float32"
        )


def packed_dtype(spec: ModelSpec, device: str) -> torch.dtype | None:
    """Choose what a classifier or embedder on the CPU multiplies in; None: as any other model.

    Where nothing is said it is the fastest: bfloat16 changes no label and hardly an embedding.
    """
    if spec.task is Task.IMAGES or device != "cpu":
        return None
    dtype = dtype_of(spec) or (torch.bfloat16 if has_fast_bfloat16() else torch.float32)
    return dtype if multiplies(dtype) else None


def paints_in_bfloat16(
    spec: ModelSpec, placement: Placement, parameters: Sequence[nn.Parameter]
) -> bool:
    """Whether the products of a Flux model's blocks are to be those of bfloat16, on the CPU.

    Where nothing is said, and the weights lie there in float32: it paints the same, sooner.
    """
    if spec.task is not Task.IMAGES or not has_fast_bfloat16():
        return False
    is_plain = not placement.float8 and not placement.num_streamed_blocks
    is_float32 = all(each.dtype == torch.float32 for each in parameters)
    is_here = all(each.device.type == "cpu" for each in parameters)
    return spec.dtype is None and spec.execution is None and is_plain and is_float32 and is_here


def execution_of(spec: ModelSpec, device: str) -> Execution:
    return default_for(device) if spec.execution is None else spec.execution.execution
