"""Replayed calls, with a capture that notes the call and runs it again into the same memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.execution import cuda_graphs
from models.execution.cuda_graphs import Captured, GraphedCall
from models.layers.adapters import Adapter, Linear


class Recorder:
    """Captures as CUDA does, as far as memory goes; counts."""

    def __init__(self) -> None:
        self.num_captured = self.num_replayed = 0

    def __call__(self, run: Callable[[], object]) -> Captured:
        self.num_captured += 1
        output = run()

        def replay() -> None:
            self.num_replayed += 1
            again = run()
            for mine, new in zip(tensors(output), tensors(again), strict=True):
                mine.copy_(new)

        return Captured(output, replay)


def tensors(output: object) -> list[Tensor]:
    return list(output.values()) if isinstance(output, dict) else []


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Linear(4, 4)

    def forward(self, x: Tensor, twice: bool = False) -> dict[str, Tensor]:
        return {"y": self.layer(x) * (2 if twice else 1)}


@pytest.fixture
def module() -> Doubling:
    return Doubling().requires_grad_(False)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def graphed(module: Doubling, recorder: Recorder) -> GraphedCall:
    return GraphedCall(module, module.forward, recorder)


def y(output: object) -> Tensor:
    assert isinstance(output, dict)
    found: Tensor = output["y"]
    return found


def test_the_second_call_of_a_shape_is_captured_and_later_ones_are_replayed(
    graphed: GraphedCall, module: Doubling, recorder: Recorder
) -> None:
    given = torch.randn(4, 3, 4)
    outputs = [y(graphed(x=each)) for each in given]
    # each output is its own: a replay does not write over what was given before
    assert torch.equal(torch.stack(outputs), y(module(given)))
    assert (recorder.num_captured, recorder.num_replayed) == (1, 3)


def test_other_shapes_and_other_arguments_have_graphs_of_their_own(
    graphed: GraphedCall, module: Doubling, recorder: Recorder
) -> None:
    for _ in range(2):
        for num_rows, twice in ((1, False), (1, True), (2, True)):
            x = torch.randn(num_rows, 4)
            assert torch.equal(y(graphed(x, twice=twice)), y(module(x, twice)))
    assert recorder.num_captured == 3


def test_weights_that_were_moved_are_captured_anew(
    graphed: GraphedCall, module: Doubling, recorder: Recorder
) -> None:
    x = torch.randn(2, 4)
    for _ in range(3):
        graphed(x)
    module.layer.weight.data = torch.randn(4, 4)
    assert torch.equal(y(graphed(x)), y(module(x)))
    assert recorder.num_captured == 2


def test_a_layer_with_an_adapter_is_not_replayed(
    graphed: GraphedCall, module: Doubling, recorder: Recorder
) -> None:
    x = torch.randn(2, 4)
    adapter = Adapter(torch.randn(2, 4), torch.randn(4, 2))
    module.layer.add_adapter(adapter)
    for scale in (1.0, 0.5, 0.0):
        adapter.scale.value = scale
        assert torch.equal(y(graphed(x)), y(module(x)))
    assert recorder.num_captured == 0


def test_the_graph_that_was_used_longest_ago_is_dropped(
    graphed: GraphedCall, recorder: Recorder
) -> None:
    sizes = range(1, cuda_graphs.MAX_GRAPHS + 2)
    for num_rows in [*sizes, *sizes, sizes[-1], sizes[0]]:
        graphed(torch.randn(num_rows, 4))
    assert recorder.num_captured == len(sizes) + 1  # the first one again, the last one not


def test_what_cannot_be_captured_runs_as_before_and_is_logged(
    module: Doubling, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Callable[[], object]) -> Captured:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphed = GraphedCall(module, module.forward, refuse)
    x = torch.randn(2, 4)
    assert all(torch.equal(y(graphed(x)), y(module(x))) for _ in range(3))
    assert [record.getMessage() for record in caplog.records] == [
        "event=lever_off lever=cuda_graphs "
        "reason='RuntimeError: operation not permitted when stream is capturing'"
    ]
