"""Adapters on layers, against torch's own layers with the merged weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.layers.adapters import (
    Adaptable,
    Adapter,
    Conv2d,
    Embedding,
    Linear,
    Scale,
    merged_state,
)

TOLERANCE = 1e-5  # float32 sums in another order, on values of order ten


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear_adapters() -> list[Adapter]:
    everywhere = Adapter(draw(2, 8), draw(12, 2, seed=1), "everywhere", gain=0.5)
    rows = Adapter(draw(3, 8, seed=2), draw(4, 3, seed=3), "rows", first_row=4)
    heads = Adapter(draw(6, 8, seed=4), draw(4, 2, seed=5))
    rows.scale.value = 1.7
    return [everywhere, rows, heads]


Case = tuple[Adaptable, nn.Module, list[Adapter], Tensor]


def linear() -> Case:
    return Linear(8, 12), nn.Linear(8, 12), linear_adapters(), draw(2, 5, 8)


def convolution() -> Case:
    adapter = Adapter(draw(2, 3, 4, 3), draw(10, 2, seed=1))
    plain = nn.Conv2d(3, 10, (4, 3), stride=(4, 3))
    return Conv2d(3, 10, (4, 3), stride=(4, 3)), plain, [adapter], draw(2, 3, 8, 6)


def embedding() -> Case:
    adapter = Adapter(draw(11, 3), draw(7, 3, seed=1))
    return Embedding(11, 7), nn.Embedding(11, 7), [adapter], torch.tensor([[0, 10], [3, 3]])


@pytest.fixture(params=[linear, convolution, embedding])
def case(request: pytest.FixtureRequest) -> Case:
    """A layer, torch's own of the same size, adapters for it and an input."""
    build: Callable[[], Case] = request.param
    return build()


def test_without_adapters_a_layer_is_torchs_own(case: Case) -> None:
    layer, plain, _, x = case
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), plain(x))
    assert layer.merged_weight() is layer.weight


def test_the_merged_weights_compute_what_the_adapters_do(case: Case) -> None:
    layer, plain, adapters, x = case
    before = layer(x)
    for adapter in adapters:
        layer.add_adapter(adapter)
    plain.load_state_dict(merged_state(layer))
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=TOLERANCE)
    assert (layer(x) - before).abs().max() > 1


def test_adapters_leave_no_trace_when_they_go(case: Case) -> None:
    layer, _, adapters, x = case
    before, state = layer(x), layer.state_dict()
    for adapter in adapters:
        layer.add_adapter(adapter)
    assert merged_state(layer).keys() == state.keys()
    for adapter in adapters:
        layer.remove_adapters(adapter.name)
    assert torch.equal(layer(x), before)
    assert layer.state_dict().keys() == state.keys()
    assert not layer.is_adapted


ROW_SCALES = (0.0, 0.7, 0.7, -1.5, 0.0)


def with_one_scale(adapters: list[Adapter]) -> Scale:
    """Let them be of one LoRA."""
    scale = Scale(0.3)
    for adapter in adapters:
        adapter.scale = scale
    return scale


@pytest.mark.parametrize("shape", [(5, 8), (5, 4, 8)], ids=["vectors", "sequences"])
def test_each_row_of_a_batch_may_have_a_scale_of_its_own(shape: tuple[int, ...]) -> None:
    layer, adapters, x = Linear(8, 12), linear_adapters(), draw(*shape)
    without = layer(x)
    shared = with_one_scale(adapters)
    for adapter in adapters:
        layer.add_adapter(adapter)
    with shared.by_row(ROW_SCALES):
        out = layer(x)
    for index, scale in enumerate(ROW_SCALES):
        shared.value = scale
        torch.testing.assert_close(out[index], layer(x)[index], rtol=0, atol=TOLERANCE)
    assert torch.equal(out[[0, 4]], without[[0, 4]])  # untouched, to the bit


def test_rows_may_differ_in_every_kind_of_layer(case: Case) -> None:
    layer, _, adapters, x = case
    without = layer(x)
    shared = with_one_scale(adapters)
    for adapter in adapters:
        layer.add_adapter(adapter)
    shared.value = 0.7
    everywhere = layer(x)
    with shared.by_row([0.7, 0.0]):
        out = layer(x)
    torch.testing.assert_close(out[0], everywhere[0], rtol=0, atol=TOLERANCE)
    assert torch.equal(out[1], without[1])


def test_scales_by_row_end_with_their_block() -> None:
    layer, adapter, x = Linear(8, 12), Adapter(draw(2, 8), draw(12, 2)), draw(2, 8)
    layer.add_adapter(adapter)
    before = layer(x)
    with pytest.raises(RuntimeError), adapter.scale.by_row([0.0, 2.0]):
        raise RuntimeError("a forward failed")
    assert torch.equal(layer(x), before)


def test_a_scale_of_zero_switches_an_adapter_off() -> None:
    layer, x = Linear(8, 12), draw(2, 8)
    before = layer(x)
    adapter = Adapter(draw(2, 8), draw(12, 2))
    layer.add_adapter(adapter)
    adapter.scale.value = 0.0
    assert torch.equal(layer(x), before)


def test_gradients_reach_an_adapter_of_a_slice() -> None:
    layer = Linear(8, 12).requires_grad_(False)
    adapter = Adapter(draw(2, 8), draw(4, 2), first_row=4)
    layer.add_adapter(adapter)
    x = draw(3, 8)
    (layer(x) ** 2).sum().backward()
    by_hand = draw(2, 8).requires_grad_()
    full = torch.cat((torch.zeros(4, 2), draw(4, 2), torch.zeros(4, 2))) @ by_hand
    ((x @ (layer.weight + full).T + layer.bias) ** 2).sum().backward()
    assert adapter.a.grad is not None
    torch.testing.assert_close(adapter.a.grad, by_hand.grad, rtol=1e-4, atol=1e-4)


def test_float32_adapters_train_beside_bfloat16_weights() -> None:
    layer = Linear(8, 12).bfloat16()
    layer.add_adapter(Adapter(draw(2, 8), draw(12, 2)))
    out = layer(draw(2, 8).bfloat16())
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert layer.merged_weight().dtype == torch.bfloat16
