"""Blocks streamed from host memory: the same numbers, one copy ahead, whatever goes wrong."""

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.layers import streaming
from models.layers.adapters import Adapter, Linear, adapters_of
from models.layers.float8_storage import Float8Matrix
from models.layers.streaming import ALIGNMENT, BlockStream, move, names_within
from tests.models.random_weights import randomise

WIDTH, NUM_BLOCKS = 8, 5


class Block(nn.Module):
    """Widths of its own, so that blocks are of several sizes."""

    def __init__(self, inner_width: int) -> None:
        super().__init__()
        self.up, self.down = Linear(WIDTH, inner_width), Linear(inner_width, WIDTH)
        self.is_broken = False

    def forward(self, x: Tensor) -> Tensor:
        if self.is_broken:
            raise ArithmeticError("broken")
        out: Tensor = x + self.down(self.up(x).relu())
        return out


def build(num_blocks: int = NUM_BLOCKS) -> list[Block]:
    blocks = [Block(16 - 2 * index) for index in range(num_blocks)]
    randomise(nn.Sequential(*blocks).requires_grad_(False), seed=1)
    return blocks


def run(blocks: Sequence[Block], x: Tensor) -> Tensor:
    return reduce(lambda value, block: block(value), blocks, x)


def parameters_of(blocks: Sequence[Block]) -> list[nn.Parameter]:
    return [parameter for block in blocks for parameter in block.parameters()]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("is_cyclic", [True, False])
@pytest.mark.parametrize("num_blocks", [1, 2, NUM_BLOCKS])
def test_streamed_blocks_compute_what_resident_ones_do(
    x: Tensor, num_blocks: int, is_cyclic: bool
) -> None:
    resident, streamed = build(num_blocks), build(num_blocks)
    BlockStream(streamed, "cpu", is_cyclic)
    for shift in range(3):
        assert torch.equal(run(streamed, x + shift), run(resident, x + shift))


def test_blocks_stream_inside_inference_mode_and_outside(x: Tensor) -> None:
    resident, streamed = build(), build()
    BlockStream(streamed, "cpu", is_cyclic=True)
    with torch.inference_mode():
        assert torch.equal(run(streamed, x), run(resident, x))
    assert torch.equal(run(streamed, x), run(resident, x))
    with torch.no_grad():
        assert torch.equal(run(streamed, x), run(resident, x))


@pytest.mark.parametrize("is_cyclic", [True, False])
def test_after_a_block_that_fails_all_is_as_before(x: Tensor, is_cyclic: bool) -> None:
    resident, streamed = build(), build()
    stream = BlockStream(streamed, "cpu", is_cyclic)
    for failing in (0, 2, NUM_BLOCKS - 1):
        streamed[failing].is_broken = True
        with pytest.raises(ArithmeticError, match="broken"):
            run(streamed, x)
        streamed[failing].is_broken = False
        assert all(stream.holds(parameter) for parameter in parameters_of(streamed))
        assert torch.equal(run(streamed, x), run(resident, x))


def aligned_bytes(tensor: Tensor) -> int:
    return math.ceil(tensor.nbytes / ALIGNMENT) * ALIGNMENT


class _Calls(TorchDispatchMode):
    """Writes down copies of whole blocks, by their bytes, and products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  # torch's own signature
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        if func is torch.ops.aten.copy_.default and args[0].dtype == torch.uint8:
            self.made.append(f"copy {args[0].nbytes}")
        if func in (torch.ops.aten.addmm.default, torch.ops.aten.linear.default):
            self.made.append("product")
        return func(*args, **kwargs or {})


def test_each_block_is_copied_before_its_predecessor_computes(x: Tensor) -> None:
    streamed = build(num_blocks=3)
    sizes = [sum(map(aligned_bytes, block.parameters())) for block in streamed]
    BlockStream(streamed, "cpu", is_cyclic=False)
    with _Calls() as calls:
        run(streamed, x)
    first, second, third = (f"copy {size}" for size in sizes)
    products = ["product", "product"]
    assert calls.made == [first, second, *products, third, *products, *products]


def test_the_first_block_is_copied_behind_the_last_for_the_next_run(x: Tensor) -> None:
    streamed = build(num_blocks=3)
    BlockStream(streamed, "cpu", is_cyclic=True)
    run(streamed, x)
    with _Calls() as calls:
        run(streamed, x)
    assert calls.made[0] != "product"  # the second block; the first is there
    assert sum(call != "product" for call in calls.made) == 3


def test_adapters_of_streamed_blocks_stay_where_they_are_put(x: Tensor) -> None:
    resident, streamed = build(), build()
    stream = BlockStream(streamed, "cpu", is_cyclic=True)
    a, b = torch.randn(2, WIDTH), torch.randn(12, 2)
    for blocks in (resident, streamed):
        blocks[2].up.add_adapter(Adapter(a, b))
    assert torch.equal(run(streamed, x), run(resident, x))
    (adapter,) = adapters_of(streamed[2].up)
    assert not stream.holds(adapter.a)


def test_float8_matrices_are_streamed_with_their_scales(x: Tensor) -> None:
    resident, streamed = build(), build()
    for block in (*resident, *streamed):
        for layer in (block.up, block.down):
            layer.keep_in_float8(Float8Matrix.of(layer.weight))
    stream = BlockStream(streamed, "cpu", is_cyclic=True)
    assert stream.holds(streamed[0].up.weight_scale)
    assert torch.equal(run(streamed, x), run(resident, x))


def test_a_lack_of_memory_for_the_buffers_is_over_when_there_is_memory_again(
    x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident, streamed = build(), build()
    stream = BlockStream(streamed, "cpu", is_cyclic=True)
    new_buffer, sizes = stream._new_buffer, []

    def no_second_one(size: int) -> object:
        sizes.append(size)
        if len(sizes) == 2:
            raise MemoryError("full")
        return new_buffer(size)

    monkeypatch.setattr(stream, "_new_buffer", no_second_one)
    with pytest.raises(MemoryError):
        run(streamed, x)
    assert torch.equal(run(streamed, x), run(resident, x))


def test_what_was_pinned_before_a_refusal_is_unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Cudart:
        def cudaHostRegister(self, pointer: int, size: int, flags: int) -> int:  # noqa: ARG002
            calls.append("pin")
            return 0 if len(calls) == 1 else 1

        def cudaHostUnregister(self, pointer: int) -> None:  # noqa: ARG002
            calls.append("unpin")

    def check_error(code: int) -> None:
        if code:
            raise RuntimeError("the system refuses")

    monkeypatch.setattr(torch.cuda, "cudart", Cudart)
    monkeypatch.setattr(torch.cuda, "check_error", check_error)
    with pytest.raises(RuntimeError):
        streaming._pin(owner := Block(4), [torch.zeros(1), torch.zeros(1)])
    del owner
    gc.collect()
    assert calls == ["pin", "pin", "unpin"]


def test_what_is_streamed_stays_on_the_host_when_the_rest_moves() -> None:
    streamed = build()
    streamed[0].up.add_adapter(Adapter(torch.ones(2, WIDTH), torch.ones(16, 2)))
    stream = BlockStream(streamed[1:], "cpu", is_cyclic=True)
    stream.to("meta")
    move(nn.Sequential(*streamed), "meta", [stream])
    assert all(parameter.is_meta for parameter in streamed[0].parameters())
    assert all(stream.holds(parameter) for parameter in parameters_of(streamed[1:]))


def test_names_are_those_of_the_state_dict() -> None:
    blocks = nn.Sequential(*build(num_blocks=2))
    expected = {name for name in blocks.state_dict() if name.startswith("1.")}
    assert names_within(blocks, [blocks[1]]) == expected


@pytest.fixture
def cuda() -> Iterator[str]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield "cuda"
    torch.cuda.empty_cache()


@pytest.mark.gpu
def test_on_cuda_blocks_stream_from_pinned_memory_and_compute_the_same(cuda: str) -> None:
    resident, streamed = build(), build()
    nn.Sequential(*resident).to(cuda)
    stream = BlockStream(streamed, cuda, is_cyclic=True)
    x = torch.randn(3, WIDTH, device=cuda)
    assert all(parameter.is_pinned() for parameter in parameters_of(streamed))
    for _ in range(20):
        assert torch.equal(run(streamed, x), run(resident, x))
    stream.to("cpu")
    assert torch.cuda.memory_allocated() < 2**20
