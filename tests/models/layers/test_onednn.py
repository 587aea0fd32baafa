"""oneDNN's product beside torch's own."""

import pytest
import torch
from torch.nn import functional as F

from models.layers import onednn
from models.layers.adapters import Linear

NO_ONEDNN = not onednn.multiplies(torch.float32)
needs_onednn = pytest.mark.skipif(NO_ONEDNN, reason="needs oneDNN on an x86 processor")
GELUS: tuple[onednn.Gelu, ...] = ("none", "tanh")


def layer_and_input() -> tuple[Linear, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    layer = Linear(16, 24)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer, torch.randn(2, 5, 16, generator=generator)


@needs_onednn
@pytest.mark.parametrize("approximate", GELUS)
def test_a_gelu_in_the_product_is_the_gelu_after_it(approximate: onednn.Gelu) -> None:
    layer, x = layer_and_input()
    with torch.no_grad():
        fused = onednn.linear(x, layer.weight, layer.bias, approximate)
        expected = F.gelu(F.linear(x, layer.weight, layer.bias), approximate=approximate)
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=0)  # sums in another order


def test_a_product_that_needs_a_gradient_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "LARGE", 0)
    layer, x = layer_and_input()
    assert not onednn.can_take(x, layer.weight)
    layer(x).sum().backward()
    assert layer.weight.grad is not None


def test_a_product_under_autocast_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "LARGE", 0)
    layer, x = layer_and_input()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_what_does_not_fit_together_is_refused_in_torchs_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onednn, "LARGE", 0)
    layer, x = layer_and_input()
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(x[..., :15])
    with torch.no_grad(), pytest.raises(RuntimeError, match="dtype"):
        layer.to(torch.bfloat16)(x)


@needs_onednn
def test_a_bias_is_taken_as_it_lies() -> None:
    layer, x = layer_and_input()
    bias = torch.arange(48.0)[::2]
    with torch.no_grad():
        product = onednn.linear(x, layer.weight, bias)
        expected = F.linear(x, layer.weight, bias)
    torch.testing.assert_close(product, expected, atol=1e-5, rtol=0)


@needs_onednn
def test_a_large_layer_without_gradients_computes_what_torch_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, x = layer_and_input()
    with torch.no_grad():
        assert not onednn.can_take(x, layer.weight)
        expected = layer(x)
        monkeypatch.setattr(onednn, "LARGE", layer.weight.numel())
        assert onednn.can_take(x, layer.weight)
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)
