"""Products in float8 on the CPU, which has the same kernel: right, and only where they may be."""

import pytest
import torch
from torch import Tensor

from models.execution import float8_products
from models.execution.compiled_blocks import repeated_blocks
from models.layers.adapters import Adapter, Linear
from models.layers.float8_products import multiply
from models.layers.float8_storage import Float8Matrix
from tests.models.execution.tiny_flux import tiny_flux, velocity


@pytest.fixture
def x() -> Tensor:
    # rows of very different sizes: a scale for all of them would lose the small ones
    return torch.randn(3, 5, 64).mul(torch.logspace(-3, 3, 5)[:, None]).bfloat16()


def rounded(matrix: Tensor) -> Tensor:
    """The numbers that the float8 values of each row stand for, worked out in float64."""
    wide = matrix.double()
    scale = wide.abs().amax(-1, keepdim=True) / 448
    return (wide / scale).float().to(torch.float8_e4m3fn).double() * scale


def test_a_product_is_that_of_the_rounded_numbers(x: Tensor) -> None:
    weight = torch.randn(48, 64).bfloat16()
    product = multiply(x, Float8Matrix.of(weight)).double()
    expected = rounded(x) @ rounded(weight).T
    error = (product - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.max() < 1e-2  # bfloat16's last bit, and ties that round to the other side


def test_a_row_of_zeros_gives_zeros() -> None:
    product = multiply(torch.zeros(2, 64).bfloat16(), Float8Matrix.of(torch.ones(16, 64)))
    assert torch.equal(product, torch.zeros(2, 16).bfloat16())


def test_all_layers_of_blocks_multiply_in_float8_but_the_modulations() -> None:
    backbone = tiny_flux(depth=1)
    layers = float8_products.layers_for(repeated_blocks(backbone))
    names = {layer: name for name, layer in backbone.named_modules()}
    double = {
        f"double_blocks.0.{stream}_{layer}"
        for stream in ("img", "txt")
        for layer in ("attn.qkv", "attn.proj", "mlp.0", "mlp.2")
    }
    single = {f"single_blocks.{i}.{layer}" for i in (0, 1) for layer in ("linear1", "linear2")}
    assert {names[layer] for layer in layers} == double | single


def test_a_layer_whose_sides_are_no_multiples_of_16_stays_as_it_is() -> None:
    odd = torch.nn.Sequential(Linear(24, 32), Linear(32, 24), Linear(32, 32))
    assert float8_products.layers_for([odd]) == [odd[2]]


def test_a_backbone_in_float8_is_near_the_one_in_bfloat16() -> None:
    backbone = tiny_flux(torch.bfloat16)
    before = velocity(backbone)
    float8_products.turn_on(float8_products.layers_for(repeated_blocks(backbone)))
    assert 1e-3 < float8_products.check_output(velocity(backbone), before) < 0.1


@torch.no_grad()
def test_an_adapter_adds_what_it_adds_to_the_cast_weight(x: Tensor) -> None:
    layer = Linear(64, 32).bfloat16()
    float8_products.turn_on([layer])
    plain = layer(x).float()
    layer.add_adapter(Adapter(torch.randn(4, 64).bfloat16(), torch.randn(32, 4).bfloat16()))
    added = layer(x).float() - plain
    float8_products.turn_off([layer])
    added_to_cast = layer(x).float()
    layer.remove_adapters(None)
    added_to_cast -= layer(x).float()
    error = (added - added_to_cast).norm(dim=-1) / added.norm(dim=-1)
    assert error.max() < 3e-2  # of differences of bfloat16 numbers


def test_another_dtype_than_bfloat16_is_refused_by_name() -> None:
    with pytest.raises(float8_products.Float8Error, match=r"the model is in torch\.float32"):
        float8_products.check_products(torch.device("cpu"), torch.float32)


def test_wrong_products_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch._scaled_mm
    monkeypatch.setattr(torch, "_scaled_mm", lambda *args, **kwargs: 2 * right(*args, **kwargs))
    with pytest.raises(float8_products.Float8Error, match=r"a product is off by"):
        float8_products.check_products(torch.device("cpu"), torch.bfloat16)
