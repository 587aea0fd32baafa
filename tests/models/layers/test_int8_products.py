"""Products in int8, against the same rounding computed plainly, and against no rounding."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers.adapters import Adapter, Linear
from models.layers.int8_products import LEAST_GELU, Int8Matrix
from models.layers.onednn import multiplies

pytestmark = pytest.mark.skipif(
    not multiplies(torch.int8), reason="this processor has no products in int8"
)
SHAPES = [(24, 40), (1, 1), (7, 5), (65, 33), (768, 96)]  # in, out
LEADING = [(), (1,), (2, 5), (300,), (0,), (3, 0)]


@pytest.fixture(autouse=True)
def _two_threads_and_a_seed() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(num_threads)


def rounded_weight(weight: Tensor) -> Tensor:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round() * scale


def rounded_rows(x: Tensor) -> Tensor:
    scale = x.abs().amax(dim=-1, keepdim=True) / 127
    return (x / scale).round() * scale


def rounded_gelu(x: Tensor) -> Tensor:
    scale = (x.amax(dim=-1, keepdim=True) - LEAST_GELU) / 255
    return ((x - LEAST_GELU) / scale).round() * scale + LEAST_GELU


def packed(layer: Linear) -> Linear:
    copy = Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    copy.load_state_dict(layer.state_dict())
    copy.pack(torch.int8)
    return copy


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize(("width", "out_width"), SHAPES)
def test_a_product_is_that_of_rounded_rows_and_a_rounded_weight(
    width: int, out_width: int, leading: tuple[int, ...], has_bias: bool
) -> None:
    plain, x = Linear(width, out_width, bias=has_bias), torch.randn(*leading, width)

    product = packed(plain)(x)

    expected = F.linear(rounded_rows(x), rounded_weight(plain.weight), plain.bias)
    assert product.dtype == torch.float32
    # one value on the edge between two may be rounded either way: that is a step of it
    torch.testing.assert_close(product, expected, atol=4e-2 / width**0.5, rtol=1e-4)


def test_the_output_of_a_gelu_is_rounded_from_its_least_value_on() -> None:
    plain, x = Linear(768, 96), torch.randn(40, 768)
    for approximate in ("none", "tanh"):
        activated = F.gelu(x, approximate=approximate)
        layer = packed(plain)
        layer.follows_gelu = True

        expected = F.linear(rounded_gelu(activated), rounded_weight(plain.weight), plain.bias)
        torch.testing.assert_close(layer(activated), expected, atol=1e-3, rtol=1e-4)


def test_knowing_of_a_gelu_the_error_is_smaller() -> None:
    plain, activated = Linear(768, 96), F.gelu(torch.randn(40, 768))
    exact, knowing = plain(activated), packed(plain)
    knowing.follows_gelu = True

    errors = [(layer(activated) - exact).norm() for layer in (knowing, packed(plain))]

    assert errors[0] < 0.85 * errors[1]


def test_products_are_near_those_without_rounding() -> None:
    plain, x = Linear(768, 96), torch.randn(100, 768)

    product, exact = packed(plain)(x), plain(x)

    assert F.cosine_similarity(product, exact).min() > 0.9995
    assert (product - exact).norm() < 0.015 * exact.norm()


def test_a_row_has_the_same_product_alone_and_beside_a_large_one() -> None:
    layer, x = packed(Linear(64, 32)), torch.randn(3, 64)
    x[1] *= 1e6

    assert torch.equal(layer(x)[:1], layer(x[:1]))


def test_rows_and_outputs_of_zeros_give_the_bias() -> None:
    plain = Linear(24, 40)
    plain.weight.data[3] = 0

    product = packed(plain)(torch.cat((torch.zeros(1, 24), torch.randn(1, 24))))

    torch.testing.assert_close(product[0], plain.bias)
    torch.testing.assert_close(product[:, 3], plain.bias[3].expand(2))


def test_what_is_not_a_number_stays_so_in_its_row_alone() -> None:
    x = torch.randn(2, 24)
    x[0, 5] = torch.nan

    product = packed(Linear(24, 40))(x)

    assert product[0].isnan().all()
    assert not product[1].isnan().any()


def test_inputs_in_bfloat16_and_columns_of_a_larger_tensor_are_taken() -> None:
    layer, wide = packed(Linear(24, 40)), torch.randn(3, 7, 48)
    inner = wide[..., 24:].transpose(0, 1)

    assert torch.equal(layer(inner), layer(inner.contiguous()))
    assert torch.equal(layer(inner.bfloat16()), layer(inner.bfloat16().float()))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_the_gelu_after_a_product_is_within_its_rounding(approximate: str) -> None:
    layer, x = packed(Linear(24, 40)), torch.randn(30, 24)

    gelu = layer.with_gelu(x, approximate)  # type: ignore[arg-type]

    torch.testing.assert_close(gelu, F.gelu(layer(x), approximate=approximate), atol=6e-4, rtol=0)


def test_a_weight_comes_back_rounded_and_packs_to_the_same_again() -> None:
    weight = torch.randn(40, 24)

    restored = Int8Matrix.of(weight).to_float32()

    torch.testing.assert_close(restored, rounded_weight(weight), atol=1e-6, rtol=1e-6)
    again = Int8Matrix.of(restored)
    assert torch.equal(again.values.to_dense(), Int8Matrix.of(weight).values.to_dense())


def test_an_adapter_counts_beside_a_product_in_int8() -> None:
    plain, x = Linear(24, 40), torch.randn(3, 24)
    layer = packed(plain)
    before = layer(x)
    added = Adapter(torch.randn(2, 24), torch.randn(40, 2))
    layer.add_adapter(added)

    torch.testing.assert_close(layer(x), before + x @ (added.b @ added.a).T, atol=1e-4, rtol=1e-4)
    merged = rounded_weight(plain.weight) + added.b @ added.a
    torch.testing.assert_close(layer.merged_weight(), merged, atol=1e-5, rtol=1e-5)


def test_with_gradients_the_rounded_weight_is_multiplied_as_any_other() -> None:
    with torch.inference_mode(False):
        plain, x = Linear(24, 40), torch.randn(3, 24, requires_grad=True)
        weight = rounded_weight(plain.weight.detach())
        layer = packed(plain)

        layer(x).square().sum().backward()

        expected = 2 * F.linear(x, weight, plain.bias).detach() @ weight
        assert x.grad is not None
        torch.testing.assert_close(x.grad, expected, atol=1e-4, rtol=1e-4)
