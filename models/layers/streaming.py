"""Blocks whose weights lie in host memory and come to the device one ahead of the computation.

The weights of a block are one piece of memory, pinned where the device is CUDA's. The device has
two buffers: while a block computes from one, the next block is copied into the other, on a stream
of its own. On the CPU the same copies are made one after the other. Nothing is lost: the blocks
compute what they would on the device. Knows nothing about what the blocks are.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

ALIGNMENT = 256  # bytes, as torch's own allocators align


@dataclass(frozen=True, slots=True)
class _Piece:
    """A tensor of a block, and where it lies in the block's memory."""

    module: str
    name: str
    tensor: Tensor  # in host memory
    first_byte: int

    def within(self, memory: Tensor) -> Tensor:
        """Give the same tensor in another copy of the memory."""
        here = memory[self.first_byte : self.first_byte + self.tensor.nbytes]
        found = here.view(self.tensor.dtype).view(self.tensor.shape)
        is_parameter = isinstance(self.tensor, nn.Parameter)
        return nn.Parameter(found, requires_grad=False) if is_parameter else found


class _HostBlock:
    """The weights of one block as one piece of host memory."""

    def __init__(self, block: nn.Module) -> None:
        """Copy the block's tensors together, and let it have them there."""
        loose: list[_Piece] = []
        num_bytes = 0
        for module_name, module in block.named_modules():
            named = (
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            )
            for name, tensor in named:
                loose.append(_Piece(module_name, name, tensor, num_bytes))
                num_bytes += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        device = loose[0].tensor.device  # the host, or meta
        self.memory = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        self._pieces = tuple(map(self._gather, loose))
        self.rest(block)

    def _gather(self, piece: _Piece) -> _Piece:
        gathered = piece.within(self.memory)
        gathered.data.copy_(piece.tensor)
        return _Piece(piece.module, piece.name, gathered, piece.first_byte)

    def rest(self, block: nn.Module) -> None:
        """Let the block have its tensors in host memory."""
        for piece in self._pieces:
            setattr(block.get_submodule(piece.module), piece.name, piece.tensor)

    def install(self, block: nn.Module, memory: Tensor) -> None:
        """Let the block have its tensors in a copy of the memory."""
        with torch.inference_mode(False):  # what is made inside could not be used outside
            for piece in self._pieces:
                setattr(block.get_submodule(piece.module), piece.name, piece.within(memory))


class _Event(Protocol):
    """What `torch.cuda.Event` and `torch.cpu.Event` have."""

    def record(self, stream: object) -> None: ...

    def wait(self, stream: object) -> None: ...


@dataclass(slots=True)
class _Buffer:
    """Device memory for one block at a time."""

    memory: Tensor
    copied: _Event
    freed: _Event  # by the computation that used it before
    index: int | None = field(default=None)  # of the block that is in it


class BlockStream:
    """Runs blocks, called one after the other, from copies of their weights.

    With `is_cyclic` the first block is copied again behind the last, for a module that runs over
    and over; without, the buffers are freed there. Adapters that a block gets later stay where they
    are put.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], device: str | torch.device, is_cyclic: bool
    ) -> None:
        """Gather the blocks' weights, which lie on the host, and hook into the blocks."""
        self._hosts = tuple(map(_HostBlock, blocks))
        self._pointers = {host.memory.untyped_storage().data_ptr() for host in self._hosts}
        self._is_cyclic = is_cyclic
        self._buffers: list[_Buffer] = []
        self._is_pinned = False
        self.to(device)
        for index, block in enumerate(blocks):
            block.register_forward_pre_hook(partial(self._enter, index))
            block.register_forward_hook(partial(self._leave, index), always_call=True)

    def holds(self, tensor: Tensor) -> bool:
        """Say whether a tensor is one of those that lie in host memory."""
        return tensor.untyped_storage().data_ptr() in self._pointers

    def to(self, device: str | torch.device) -> None:
        """Compute on another device from now on; the buffers on this one are freed."""
        self._free()
        self._device = torch.device(device)
        if self._device.type == "cuda" and not self._is_pinned:
            self._is_pinned = True
            _pin(self, [host.memory for host in self._hosts])

    def _enter(self, index: int, block: nn.Module, _: object) -> None:
        if not self._buffers:
            self._allocate()
        # not copied ahead: the first of all, or after a computation that failed
        buffer = self._holding(index) or self._copy(index, self._buffers[0])
        buffer.copied.wait(self._current_stream())
        self._hosts[index].install(block, buffer.memory)
        following = index + 1
        if self._is_cyclic:
            following %= len(self._hosts)
        if following < len(self._hosts) and self._holding(following) is None:
            (other,) = (each for each in self._buffers if each is not buffer)
            self._copy(following, other)

    def _leave(self, index: int, block: nn.Module, _: object, __: object) -> None:
        """After the block, also where it failed."""
        self._hosts[index].rest(block)
        buffer = self._holding(index)
        if buffer is not None:
            buffer.freed.record(self._current_stream())
        if index == len(self._hosts) - 1 and not self._is_cyclic:
            self._free()

    def _holding(self, index: int) -> _Buffer | None:
        return next((buffer for buffer in self._buffers if buffer.index == index), None)

    def _copy(self, index: int, buffer: _Buffer) -> _Buffer:
        """Start to copy a block, behind the computation that the buffer is still used by."""
        source = self._hosts[index].memory
        buffer.freed.wait(self._stream)
        with self._torch_device.stream(self._stream):
            buffer.memory[: len(source)].copy_(source, non_blocking=True)
            buffer.copied.record(self._stream)
        buffer.index = index
        return buffer

    def _allocate(self) -> None:
        """Make stream and buffers; the memory may be in use by what was computed before."""
        self._torch_device = torch.get_device_module(self._device)
        self._stream = self._torch_device.Stream(self._device)
        size = max(len(host.memory) for host in self._hosts)
        self._buffers = [self._new_buffer(size) for _ in range(2)]  # both, or none where one fails

    def _new_buffer(self, size: int) -> _Buffer:
        with torch.inference_mode(False):
            memory = torch.empty(size, dtype=torch.uint8, device=self._device)
        new_event = self._torch_device.Event
        buffer = _Buffer(memory, copied=new_event(), freed=new_event())
        buffer.freed.record(self._current_stream())
        return buffer

    def _free(self) -> None:
        """Give the buffers back, behind a copy that may be under way."""
        for buffer in self._buffers:
            buffer.copied.wait(self._current_stream())
        self._buffers.clear()

    def _current_stream(self) -> object:
        stream: object = self._torch_device.current_stream(self._device)
        return stream


def move(module: nn.Module, device: str | torch.device, streams: Sequence[BlockStream]) -> None:
    """Move a module to a device, without what is streamed."""

    def place(tensor: Tensor) -> Tensor:
        return tensor if any(each.holds(tensor) for each in streams) else tensor.to(device)

    module._apply(place)


def names_within(module: nn.Module, parts: Sequence[nn.Module]) -> frozenset[str]:
    """Name the tensors of some parts as the whole module's state dict does."""
    names = {part: name for name, part in module.named_modules()}
    return frozenset(f"{names[part]}.{name}" for part in parts for name in part.state_dict())


def _pin(owner: object, memories: list[Tensor]) -> None:
    """Pin memory as long as its owner lives.

    In place: torch's own pinned memory is rounded up to a power of two, up to twice as much.
    Raises torch.cuda.CudaError where the system refuses.
    """
    cudart = torch.cuda.cudart()
    pinned: list[Tensor] = []
    weakref.finalize(owner, _unpin, pinned).atexit = False
    for memory in memories:
        torch.cuda.check_error(cudart.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0))
        pinned.append(memory)


def _unpin(memories: list[Tensor]) -> None:
    for memory in memories:
        torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())
