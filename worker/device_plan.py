"""How a Flux pipeline is laid out on a device that may be too small for it: a pure decision.

From sizes, free memory and speed to a `Placement`, what it takes, and how long a step will be. The
first layout that fits wins, those without loss and the faster ones first: all on the device; the
autoencoder in tiles; T5 streamed from the host's memory for each new prompt; as few as possible of
the transformer's blocks streamed as well. Matrices in float8 come last, unless the checkpoint
itself is float8: then nothing is lost by it, and it comes before streaming blocks. Free of torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.errors import PresetError
from models.flux.placement import FluxSizes, Placement
from worker.eviction import MemoryNeed

TILE_FROM = 512  # pixels of a side: below, the decoder takes less than the transformer
_BYTES = 2  # of a number in bfloat16
# Values a token and a unit of width while a block runs: its input, norm, queries, keys and values
# before and after their rotation, the wide MLP and its GELU, and what is added up.
_VALUES_PER_TOKEN = 28
# The decoder's values an output pixel and a channel of its last level but one, which runs at the
# image's full size: measured. Images are decoded one by one.
_WHOLE_MAPS, _TILED_MAPS = 4.0, 1.9
_ENCODER_MAPS = 4.0  # of start images, likewise for a channel of its first level
_GB = 1e9


class PlanError(PresetError):
    """Raised where no layout of a model fits; says what is missing."""


@dataclass(frozen=True, slots=True)
class Device:
    """device_bytes        free for this model and its work
    host_bytes          free in the host's memory
    flops_per_s         of products of matrices, measured
    copy_bytes_per_s    from pinned host memory, measured
    """

    device_bytes: int
    host_bytes: int
    flops_per_s: float
    copy_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Images of one forward. Sizes in pixels."""

    width: int
    height: int
    num_images: int
    num_text_tokens: int

    @property
    def num_tokens(self) -> int:
        return self.num_text_tokens + self.width * self.height // 16**2


@dataclass(frozen=True, slots=True)
class DevicePlan:
    placement: Placement
    need: MemoryNeed
    text_s: float  # to bring T5, for each new prompt; 0: it is there
    max_tokens: int  # of text and images, of all rows of a forward, that there is room for
    overlaps: bool  # there is room for texts being encoded and images decoded beside a forward


def plan(
    sizes: FluxSizes, device: Device, batch: ImageBatch, fixed: Placement | None = None
) -> DevicePlan:
    """Choose the layout that has room for a batch, or take the one that is `fixed`.

    Raises PlanError where none fits.
    """
    if fixed is not None:
        chosen = _lay_out(sizes, device, batch, fixed)
        if not _fits(chosen, device):
            raise PlanError(f"the configured placement does not fit: {_lack(chosen, device)}")
        return chosen
    candidates = _candidates(sizes)
    if not device.host_bytes:
        candidates = [each for each in candidates if not each.streams_text_encoder]
    tried = [_lay_out(sizes, device, batch, each) for each in candidates]
    for candidate in tried:
        if _fits(candidate, device):
            return candidate
    smallest = min(tried, key=lambda each: _taken(each.need))
    raise PlanError(f"the device is too small: {_lack(smallest, device)}")


def _candidates(sizes: FluxSizes) -> list[Placement]:
    """Every layout that may be chosen, the best first."""
    tiled = Placement(tile_from=TILE_FROM)
    smallest = replace(tiled, streams_text_encoder=True)
    resident = [Placement(), tiled, Placement(streams_text_encoder=True), smallest]
    streamed = [
        replace(smallest, num_streamed_blocks=number + 1)
        for number in range(len(sizes.block_bytes))
    ]
    resident_float8 = [replace(each, float8=True) for each in resident]
    streamed_float8 = [replace(each, float8=True) for each in streamed]
    if sizes.is_float8:
        return [*resident, *resident_float8, *streamed_float8]
    return [*resident, *streamed, *resident_float8, *streamed_float8]


def _lay_out(
    sizes: FluxSizes, device: Device, batch: ImageBatch, placement: Placement
) -> DevicePlan:
    blocks = _blocks(sizes, placement)
    first_streamed = len(blocks) - placement.num_streamed_blocks
    resident, streamed = blocks[:first_streamed], blocks[first_streamed:]
    text = sizes.t5_block_bytes if placement.streams_text_encoder else ()
    weights = (
        sum(resident)
        + _buffers(streamed)
        + sizes.other_transformer_bytes
        + (0 if text else sum(sizes.t5_block_bytes))
        + sizes.other_t5_bytes
        + sizes.clip_bytes
        + sizes.autoencoder_bytes
    )
    work = (
        _buffers(text),  # freed once a prompt is encoded
        _block_work(sizes, batch, placement),
        _autoencoder_work(sizes, batch, placement),
    )
    overlaps = weights + sum(work) <= device.device_bytes
    beside_bytes = work[0] + work[2] if overlaps else 0
    return DevicePlan(
        placement,
        MemoryNeed(
            weights,
            sum(work) if overlaps else max(work),
            host_bytes=sum(streamed) + sum(text),
        ),
        text_s=sum(text) / device.copy_bytes_per_s,
        max_tokens=_max_tokens(sizes, device.device_bytes - weights - beside_bytes, placement),
        overlaps=overlaps,
    )


def _blocks(sizes: FluxSizes, placement: Placement) -> Sequence[int]:
    return sizes.float8_block_bytes if placement.float8 else sizes.block_bytes


def _buffers(streamed: Sequence[int]) -> int:
    """One block computes while the next is copied."""
    return 2 * max(streamed, default=0)


def _block_work(sizes: FluxSizes, batch: ImageBatch, placement: Placement) -> int:
    num_tokens = batch.num_images * batch.num_tokens
    return num_tokens * _token_bytes(sizes) + _cast_bytes(sizes, placement)


def _max_tokens(sizes: FluxSizes, work_bytes: int, placement: Placement) -> int:
    return max(0, work_bytes - _cast_bytes(sizes, placement)) // _token_bytes(sizes)


def _token_bytes(sizes: FluxSizes) -> int:
    return _VALUES_PER_TOKEN * sizes.hidden_size * _BYTES


def _cast_bytes(sizes: FluxSizes, placement: Placement) -> int:
    """One matrix is cast at a time, and none in bfloat16 is larger than a block in float8."""
    return max(sizes.float8_block_bytes) if placement.float8 else 0


def _autoencoder_work(sizes: FluxSizes, batch: ImageBatch, placement: Placement) -> int:
    """Of one image at a time: decoding it, in tiles or whole, or encoding a start image."""
    is_tiled = placement.tile_from is not None and placement.tile_from <= max(
        batch.width, batch.height
    )
    first, second, *_ = (*sizes.autoencoder_widths, sizes.autoencoder_widths[-1])
    decoder = (_TILED_MAPS if is_tiled else _WHOLE_MAPS) * second
    return int(max(decoder, _ENCODER_MAPS * first) * batch.width * batch.height * _BYTES)


def step_s(sizes: FluxSizes, device: Device, batch: ImageBatch, placement: Placement) -> float:
    """Expect so many seconds a step: products, and copies where they take longer."""
    block_s = batch.num_images * _block_flops(sizes, batch.num_tokens) / device.flops_per_s
    blocks, num_streamed = _blocks(sizes, placement), placement.num_streamed_blocks
    num_resident = len(blocks) - num_streamed
    copy_s = sum(blocks[num_resident:]) / device.copy_bytes_per_s
    return num_resident * block_s + max(num_streamed * block_s, copy_s)


def _block_flops(sizes: FluxSizes, num_tokens: int) -> float:
    """Of one block, double or single: both hold (4 + 2 r) D² weights a token, and attend."""
    width = sizes.hidden_size
    products = 2 * (4 + 2 * sizes.mlp_ratio) * width**2 * num_tokens
    return products + 4 * num_tokens**2 * width


def _fits(plan: DevicePlan, device: Device) -> bool:
    return _taken(plan.need) <= device.device_bytes and plan.need.host_bytes <= device.host_bytes


def _taken(need: MemoryNeed) -> int:
    return need.weights_bytes + need.work_bytes


def _lack(plan: DevicePlan, device: Device) -> str:
    needs = f"it takes {_gb(_taken(plan.need))} of {_gb(device.device_bytes)} on the device"
    if not plan.need.host_bytes:
        return needs
    return (
        f"{needs} and {_gb(plan.need.host_bytes)} of {_gb(device.host_bytes)} in the host's memory"
    )


def describe(plan: DevicePlan, sizes: FluxSizes, device: Device, batch: ImageBatch) -> str:
    """Say a plan in one line, for the log at start, with the time of a usual batch."""
    placement = plan.placement
    transformer = sum(_blocks(sizes, placement)) + sizes.other_transformer_bytes
    parts = [f"transformer {_gb(transformer)}{' in float8' if placement.float8 else ''}"]
    if placement.num_streamed_blocks:
        parts[0] += (
            f", {placement.num_streamed_blocks} of its {len(sizes.block_bytes)} blocks streamed "
            "from host memory"
        )
    text = f"T5 {_gb(sum(sizes.t5_block_bytes) + sizes.other_t5_bytes)}"
    if placement.streams_text_encoder:
        text += f", streamed from host memory for a new prompt ({plan.text_s:.1f} s)"
    decoder = f"autoencoder {_gb(sizes.autoencoder_bytes)}"
    if placement.tile_from is not None:
        decoder += f", tiled from {placement.tile_from} pixels"
    return (
        f"{'; '.join((*parts, text, decoder))}; takes {_gb(_taken(plan.need))} of the device with "
        f"its work; about {step_s(sizes, device, batch, placement):.3g} s a step at "
        f"{batch.width}x{batch.height}"
    )


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / _GB:.2f} GB"
