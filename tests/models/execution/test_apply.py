"""Levers on a CPU: what is on gives the same output, what is not to be had is logged."""

import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from models.execution.apply import Subject, apply
from models.execution.execution import EAGER, LOSSLESS, Execution, default_for
from models.layers.adapters import Adapter, Linear
from models.layers.streaming import BlockStream

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "models.execution")


class Compiler:
    """A backend that counts what is compiled, and how often it runs."""

    def __init__(self) -> None:
        self.num_compiled = self.num_runs = 0
        self.is_broken = False

    def __call__(self, graph: GraphModule, _: object) -> Callable[..., object]:
        self.num_compiled += 1

        def run(*inputs: object) -> object:
            self.num_runs += 1
            if self.is_broken:
                raise RuntimeError("no kernel for these shapes")
            return graph(*inputs)

        return run


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.widen, self.back = Linear(32, 64), Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.back(self.widen(self.norm(x)).tanh())
        return result


class Stack(nn.Module):
    """A model of blocks that is quick to compile: [B, L, 32] to the same."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.parts = [Block() for _ in range(4)]
        self.blocks = nn.ModuleList(self.parts)
        self.to(dtype).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@torch.inference_mode()
def run(stack: Stack, num_rows: int, length: int = 24) -> Tensor:
    random = torch.Generator().manual_seed(num_rows)
    x = torch.randn(num_rows, length, 32, generator=random)
    result: Tensor = stack(x.to(stack.parts[0].norm.weight.dtype))
    return result


def subject_of(stack: Stack, backend: object = "eager") -> Subject:
    return Subject(stack, "forward", lambda n: run(stack, n), CPU, backend)  # type: ignore[arg-type]


def out_of_memory(*_: object) -> Tensor:
    raise torch.OutOfMemoryError("out of memory")


def failing(*_: object, **__: object) -> None:
    raise RuntimeError("no such kernel")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_cuda_gets_what_loses_nothing_and_a_cpu_nothing() -> None:
    assert default_for("cuda:1") == LOSSLESS
    assert not LOSSLESS.float8_products
    assert LOSSLESS.block_cache is None
    assert default_for("cpu") == EAGER == Execution()


def test_a_graph_and_a_cache_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="cuda_graphs and block_cache exclude each other"):
        Execution(cuda_graphs=True, block_cache=0.1)


def test_compiled_blocks_give_the_same_for_every_size_without_compiling_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stack, compiler = Stack(), Compiler()
    sizes = ((1, 24), (2, 24), (1, 40), (3, 16))
    expected = [run(stack, *size) for size in sizes]
    apply(subject_of(stack, compiler), Execution(compiles=True))
    assert compiler.num_compiled == 2  # all blocks are of one class: one row, and more
    compiler.num_runs = 0
    for size, each in zip(sizes, expected, strict=True):
        torch.testing.assert_close(run(stack, *size), each, rtol=0, atol=1e-5)
    assert compiler.num_compiled == 2
    assert compiler.num_runs == len(sizes) * len(stack.parts)
    assert messages(caplog) == ["event=lever_on lever=compiles blocks=4"]


def test_a_lora_that_comes_later_counts_and_is_not_compiled() -> None:
    stack, compiler = Stack(), Compiler()
    plain = run(stack, 2)
    apply(subject_of(stack, compiler), Execution(compiles=True))
    stack.parts[1].widen.add_adapter(Adapter(torch.randn(2, 32), torch.randn(64, 2)))
    with_lora = run(stack, 2)
    assert compiler.num_compiled == 2
    for block in stack.blocks:
        block._compiled_call_impl = None
    torch.testing.assert_close(with_lora, run(stack, 2), rtol=0, atol=1e-5)
    assert not torch.allclose(with_lora, plain)


def test_where_the_compiler_fails_blocks_run_eagerly_and_it_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stack = Stack()
    expected = run(stack, 1)
    apply(subject_of(stack, failing), Execution(compiles=True))
    assert torch.equal(run(stack, 1), expected)
    [message] = messages(caplog)
    assert message.startswith("event=lever_off lever=compiles reason=")
    assert "no such kernel" in message


def test_compiled_blocks_that_fail_later_run_eagerly_from_then_on_and_it_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stack, compiler = Stack(), Compiler()
    expected = run(stack, 2)
    apply(subject_of(stack, compiler), Execution(compiles=True))
    compiler.is_broken, compiler.num_runs = True, 0
    for _ in range(2):
        torch.testing.assert_close(run(stack, 2), expected, rtol=0, atol=1e-5)
    assert compiler.num_runs == 1  # it failed once
    assert messages(caplog)[1:] == [
        "event=lever_off lever=all reason='RuntimeError: no kernel for these shapes'"
    ]


def test_too_little_memory_for_a_batch_turns_nothing_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stack, compiler = Stack(), Compiler()
    apply(subject_of(stack, compiler), Execution(compiles=True))
    with monkeypatch.context() as patch:
        patch.setattr(stack.parts[0], "_compiled_call_impl", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            run(stack, 2)
    compiler.num_runs = 0
    run(stack, 2)
    assert compiler.num_runs == len(stack.parts)
    assert messages(caplog) == ["event=lever_on lever=compiles blocks=4"]


def test_too_little_memory_to_try_a_lever_leaves_it_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stack = Stack(torch.bfloat16)
    expected = run(stack, 1)
    subject = Subject(stack, "forward", out_of_memory, CPU, "eager")
    apply(subject, Execution(float8_products=True, compiles=True))
    assert torch.equal(run(stack, 1), expected)
    assert messages(caplog) == [
        f"event=lever_off lever={lever} reason='OutOfMemoryError: out of memory'"
        for lever in ("float8_products", "compiles")
    ]


def test_a_model_in_use_is_not_compiled_while_another_one_is() -> None:
    used, loading, compiler = Stack(), Stack(torch.bfloat16), Compiler()
    apply(subject_of(used, compiler), Execution(compiles=True))
    num_compiled = []

    def call(num_rows: int) -> Tensor:
        with torch.no_grad():  # what was compiled for inference mode does not fit
            used(torch.zeros(2, 24, 32))
        num_compiled.append(compiler.num_compiled)
        return run(loading, num_rows)

    apply(Subject(loading, "forward", call, CPU, "eager"), Execution(compiles=True))
    assert num_compiled == [2, 2]


def test_products_in_float8_that_fail_later_are_cast_back_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = Stack(torch.bfloat16)
    apply(subject_of(stack), Execution(float8_products=True))
    in_float8 = run(stack, 2).float()
    monkeypatch.setattr(torch, "_scaled_mm", failing)
    cast_back = run(stack, 2).float()
    assert 0 < (cast_back - in_float8).norm() / in_float8.norm() < 0.1


def test_streamed_blocks_stay_eager_and_no_graph_is_captured_on_a_cpu(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stack = Stack()
    expected = run(stack, 2)
    BlockStream(stack.parts[1:], "cpu", is_cyclic=True)
    apply(subject_of(stack), Execution(compiles=True, cuda_graphs=True))
    torch.testing.assert_close(run(stack, 2), expected, rtol=0, atol=1e-5)
    assert messages(caplog) == [
        "event=lever_off lever=compiles reason='3 of 4 blocks are streamed'",
        "event=lever_on lever=compiles blocks=1",
        "event=lever_off lever=cuda_graphs reason='the device is cpu'",
    ]


def test_float8_leaves_the_weights_of_streamed_blocks_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stack = Stack(torch.bfloat16)
    blocks = stack.parts
    BlockStream(blocks[2:], "cpu", is_cyclic=True)
    apply(subject_of(stack), Execution(float8_products=True))
    dtypes = [block.widen.weight.dtype for block in blocks]
    assert dtypes == 2 * [torch.float8_e4m3fn] + 2 * [torch.bfloat16]
    assert messages(caplog)[0].startswith("event=lever_on lever=float8_products layers=4 ")


def test_float8_of_a_model_in_float32_is_off_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stack = Stack()
    expected = run(stack, 1)
    apply(subject_of(stack), Execution(float8_products=True))
    assert torch.equal(run(stack, 1), expected)
    assert messages(caplog) == [
        "event=lever_off lever=float8_products "
        "reason='the model is in torch.float32; products in float8 give bfloat16'"
    ]


def test_float8_and_compiled_blocks_go_together() -> None:
    stack = Stack(torch.bfloat16)
    before = run(stack, 2).float()
    apply(subject_of(stack), Execution(float8_products=True, compiles=True))
    after = run(stack, 2).float()
    assert 0 < (after - before).norm() / before.norm() < 0.1
