"""The linear layers of blocks multiply in float8, but those that steer.

Modulations, embedders, norms and the last layer stay as they are: they cost little, and what they
lose reaches every patch.
"""

from collections.abc import Iterable, Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

from models.layers.adapters import Linear
from models.layers.float8_products import MULTIPLE, multiply
from models.layers.float8_storage import E4M3, Float8Matrix

MAX_PRODUCT_ERROR = 0.06  # of e4m3's 3 bits twice, in L2; a wrong scale gives much more
MAX_OUTPUT_ERROR = 0.25  # of a whole backbone, in L2; noise gives above 1
_PROBE_ROWS, _PROBE_WIDTH = 32, 64


class Float8Error(Exception):
    """Raised where products in float8 are not to be had, or are wrong."""


def layers_for(blocks: Iterable[nn.Module]) -> list[Linear]:
    """Give the layers of blocks that may multiply in float8."""
    return [layer for block in blocks for layer in block.modules() if _may_multiply(layer)]


def _may_multiply(layer: nn.Module) -> TypeGuard[Linear]:
    if type(layer) is not Linear or layer.is_packed:  # modulations are of a subclass
        return False
    return layer.in_features % MULTIPLE == 0 and layer.out_features % MULTIPLE == 0


def dtype_of(layers: Sequence[Linear]) -> torch.dtype:
    """Give the dtype of the outputs; raises Float8Error for no layers."""
    if not layers:
        raise Float8Error("no layer of the blocks may multiply in float8")
    biases = (layer.bias for layer in layers if layer.bias is not None)
    return next(biases, layers[0].weight).dtype  # a weight may be in float8 already


def check_products(device: torch.device, dtype: torch.dtype) -> None:
    """Multiply once and compare; raises Float8Error."""
    if dtype is not torch.bfloat16:
        raise Float8Error(f"the model is in {dtype}; products in float8 give bfloat16")
    x = torch.randn(_PROBE_ROWS, _PROBE_WIDTH, device=device, dtype=dtype)
    weight = torch.randn(2 * _PROBE_WIDTH, _PROBE_WIDTH, device=device, dtype=dtype)
    try:
        product = multiply(x, Float8Matrix.of(weight))
    except (RuntimeError, ValueError) as error:  # ValueError: older GPUs
        raise Float8Error(str(error).splitlines()[0]) from error
    found = difference(product, x.float() @ weight.float().T)
    if not found < MAX_PRODUCT_ERROR:
        raise Float8Error(f"a product is off by {found:.3f}, more than {MAX_PRODUCT_ERROR}")


def turn_on(layers: Iterable[Linear]) -> list[Linear]:
    """Round the weights that are not in float8 yet, and multiply in float8; those that changed."""
    turned = []
    for layer in layers:
        if not layer.is_float8:
            layer.keep_in_float8(Float8Matrix.of(layer.weight))
        if layer.weight.dtype is E4M3:
            layer.multiplies_in_float8 = True
            turned.append(layer)
    return turned


def turn_off(layers: Iterable[Linear]) -> None:
    """Cast back again before products; the weights stay rounded."""
    for layer in layers:
        layer.multiplies_in_float8 = False


def check_output(output: Tensor, expected: Tensor) -> float:
    """Give how far an output is from the one before; raises Float8Error for too far."""
    found = difference(output, expected)
    if not found < MAX_OUTPUT_ERROR:
        raise Float8Error(f"the output is off by {found:.3f}, more than {MAX_OUTPUT_ERROR}")
    return found


def difference(output: Tensor, expected: Tensor) -> float:
    """Compare in L2, relative to what is expected."""
    apart = torch.linalg.vector_norm(output.float() - expected.float())
    return float(apart / torch.linalg.vector_norm(expected.float()))
