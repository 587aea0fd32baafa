"""Run a Flux pipeline by levers: those of every backbone, and those of its own."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.execution.apply import Subject, apply
from models.execution.execution import Execution
from models.execution.fallback import report_off, report_on
from models.flux.autoencoder import Autoencoder
from models.flux.backbone import FluxBackbone

# What is compiled with; as many patches as text tokens would look like one size
EXAMPLE_SIDE = 512  # pixels
EXAMPLE_GUIDANCE = 3.5


def turn_on(
    backbone: FluxBackbone,
    autoencoder: Autoencoder,
    call: Callable[[int], Tensor],
    execution: Execution,
    backend: str = "inductor",
) -> None:
    """Turn on what can be had; `call` takes a step of so many rows."""
    device = backbone.img_in.weight.device
    apply(Subject(backbone, "predict", call, device, backend), execution)
    if execution.channels_last:
        _lay_channels_last(autoencoder)


def _lay_channels_last(autoencoder: Autoencoder) -> None:
    try:
        autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    except RuntimeError as error:  # no memory for a second copy; what is laid already may stay
        report_off("channels_last", error)
    else:
        report_on("channels_last")


def block_cache(backbone: FluxBackbone, execution: Execution, has_loras: bool) -> float | None:
    """Give the threshold of the first-block cache, or None where it is off."""
    if execution.block_cache is None:
        return None
    if has_loras:  # a forward of some of its rows would need scales of its own
        report_off("block_cache", "the model has LoRAs")
    elif not backbone.depth:
        report_off("block_cache", "the model has no double block")
    else:
        report_on("block_cache", f"threshold={execution.block_cache}")
        return execution.block_cache
    return None
