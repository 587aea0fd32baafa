"""Packed linear layers, against the same layers as torch has them."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.adapters import Adapter, Linear, merged_state
from models.layers.onednn import multiplies
from models.layers.packing import pack_linear_layers

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # roundings of values of order one

pytestmark = pytest.mark.skipif(
    not multiplies(torch.bfloat16), reason="this processor has no packed products"
)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def packed(layer: Linear, dtype: torch.dtype) -> Linear:
    copy = deepcopy(layer)
    copy.pack(dtype)
    return copy


def adapter() -> Adapter:
    return Adapter(torch.randn(2, 24), torch.randn(40, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (2, 5, 24), (300, 24)])
@torch.inference_mode()
def test_a_packed_product_is_the_plain_one(
    shape: tuple[int, ...], has_bias: bool, dtype: torch.dtype
) -> None:
    plain, x = Linear(24, 40, bias=has_bias), torch.randn(shape)

    product = packed(plain, dtype)(x)

    assert product.dtype == dtype
    expected = F.linear(x, plain.weight, plain.bias)
    torch.testing.assert_close(product.float(), expected, atol=TOLERANCE[dtype], rtol=1e-2)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@torch.inference_mode()
def test_a_packed_product_takes_gelu_along(approximate: str) -> None:
    plain, x = Linear(24, 40), torch.randn(3, 24)

    product = packed(plain, torch.float32).with_gelu(x, approximate)  # type: ignore[arg-type]

    expected = F.gelu(F.linear(x, plain.weight, plain.bias), approximate=approximate)
    torch.testing.assert_close(product, expected, atol=1e-5, rtol=1e-5)


def test_columns_of_a_larger_tensor_are_taken_as_they_lie() -> None:
    plain, wide = Linear(24, 40), torch.randn(3, 7, 48)

    with torch.inference_mode():
        product = packed(plain, torch.float32)(wide[..., 24:].transpose(0, 1))
        expected = F.linear(wide[..., 24:].transpose(0, 1), plain.weight, plain.bias)

    torch.testing.assert_close(product, expected, atol=1e-5, rtol=1e-5)


def test_an_adapter_counts_on_a_packed_layer_too() -> None:
    plain, x, added = Linear(24, 40), torch.randn(3, 24), adapter()
    layer = packed(plain, torch.float32)
    layer.add_adapter(added)

    with torch.inference_mode():
        product, gelu = layer(x), layer.with_gelu(x)

    expected = F.linear(x, plain.weight + added.b @ added.a, plain.bias)
    torch.testing.assert_close(product, expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(gelu, F.gelu(expected), atol=1e-4, rtol=1e-5)


def test_an_adapter_of_a_packed_layer_is_trained_as_of_a_plain_one() -> None:
    plain, x, added = Linear(24, 40), torch.randn(3, 24), adapter()
    layer = packed(plain, torch.float32)
    gradients: list[list[Tensor]] = []
    for each in (plain, layer):
        each.add_adapter(deepcopy(added))
        each.with_gelu(x).square().sum().backward()
        gradients.append([p.grad for p in each.adapters.parameters() if p.grad is not None])

    assert len(gradients[0]) == 2
    torch.testing.assert_close(gradients[1], gradients[0])


def test_layers_that_would_not_gain_stay_as_they_are() -> None:
    layers = Linear(256, 256), Linear(128, 128), Linear(96, 96)

    pack_linear_layers(nn.Sequential(*layers), torch.float32)
    assert [layer.is_packed for layer in layers] == [True, False, False]
    pack_linear_layers(nn.Sequential(*layers[1:]), torch.bfloat16)
    assert [layer.is_packed for layer in layers] == [True, True, False]


@pytest.mark.skipif(not multiplies(torch.int8), reason="this processor has no products in int8")
def test_a_module_packed_in_int8_saves_weights_within_half_a_step() -> None:
    plain = nn.Sequential(Linear(256, 256), nn.LayerNorm(256))
    module = deepcopy(plain)

    pack_linear_layers(module, torch.int8)

    saved, expected = merged_state(module), plain.state_dict()
    assert saved["0.weight"].dtype == torch.float32
    half_a_step = expected["0.weight"].abs().amax(dim=1, keepdim=True) / 254
    assert ((saved["0.weight"] - expected["0.weight"]).abs() <= 1.001 * half_a_step).all()
    assert torch.equal(saved["0.bias"], expected["0.bias"])


def test_a_packed_module_saves_its_weights_as_they_were() -> None:
    plain = nn.Sequential(Linear(256, 256), nn.LayerNorm(256), Linear(256, 256))
    module = deepcopy(plain)

    pack_linear_layers(module, torch.float32)

    torch.testing.assert_close(merged_state(module), dict(plain.state_dict()), atol=0, rtol=0)
