"""Low-rank additions to a layer's weight, and the layers that can hold them.

`Linear`, `Conv2d` and `Embedding` are torch's own, with the same parameter names, until an
`Adapter` is added; then each of those adds `strength` · B·A to what the weight alone gives, so
that it can be trained, scaled and taken away while the weight stays as it is, be that in float8.
A batch may hold rows for which an adapter counts, and rows for which it does not. Knows nothing
about files. The arithmetic is that of Keras 3.15 (keras/src/layers, `enable_lora`), where the
projections of attention heads share one B, and of PEFT 0.21, where an adapter may own a slice of
the outputs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import float8_products, onednn
from models.layers.float8_storage import Float8Matrix
from models.layers.int8_products import Int8Matrix, Int8Rows

_PACKED_FOR_ROWS = 256  # of inputs: from a few on oneDNN chooses the same layout for any number


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring rows of a batch, for which adapters count so many times."""

    rows: slice
    scale: float


class Scale:
    """How many times adapters count; all those of one LoRA share it, and change with it.

    `value` is for every row of a batch, but within `by_row`.
    """

    def __init__(self, value: float = 1.0) -> None:
        self.value = value
        self._by_row: tuple[_Run, ...] | None = None

    @contextmanager
    def by_row(self, scales: Sequence[float]) -> Iterator[None]:
        """Within, let each row of a batch have a scale of its own.

        Each run of neighbours with the same scale costs a product of its own; a run of zeros none.
        """
        self._by_row = tuple(_runs(scales))
        try:
            yield
        finally:
            self._by_row = None

    @property
    def runs(self) -> tuple[_Run, ...]:
        """The rows for which adapters count."""
        if self._by_row is not None:
            return self._by_row
        return (_Run(slice(None), self.value),) if self.value else ()


def _runs(scales: Sequence[float]) -> Iterator[_Run]:
    first = 0
    for scale, neighbours in groupby(scales):
        end = first + len(list(neighbours))
        if scale:
            yield _Run(slice(first, end), scale)
        first = end


class Adapter(nn.Module):
    """A low-rank addition to one weight, in torch's layout with r the rank.

    a  [r, in], or [n·r, in] where n heads share `b`; [r, C, kh, kw] for a convolution; [K, r] for
       an embedding of K rows
    b  [rows, r]; one head's rows where heads share it

    Adds to the weight's rows from `first_row` on, `gain` · `scale` times: the file's share and the
    user's.
    """

    def __init__(
        self, a: Tensor, b: Tensor, name: str | None = None, first_row: int = 0, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.a = nn.Parameter(a)
        self.b = nn.Parameter(b)
        self.name = name
        self.first_row = first_row
        self.gain = gain
        self.scale = Scale()

    @property
    def strength(self) -> float:
        """The factor of B·A, but within `Scale.by_row`."""
        return self.gain * self.scale.value

    @property
    def rank(self) -> int:
        return self.b.shape[1]


class Adaptable(nn.Module):
    """A layer whose `weight` can be added to."""

    weight: Tensor
    adapters: nn.ModuleList
    is_adapted = False  # of the class: a layer without adapters has no attribute more than torch's

    def add_adapter(self, adapter: Adapter) -> None:
        if not self.is_adapted:
            self.is_adapted = True
            self.adapters = nn.ModuleList()
        self.adapters.append(adapter)

    def remove_adapters(self, name: str | None) -> None:
        """Take away the adapters of this name; without any left, be as before."""
        kept = [adapter for adapter in adapters_of(self) if adapter.name != name]
        if self.is_adapted:
            self.adapters = nn.ModuleList(kept)
        if self.is_adapted and not kept:
            del self.adapters, self.is_adapted

    @property
    def weight_shape(self) -> torch.Size:
        """The weight's shape in torch's layout; one that is packed may lie in another."""
        return self.weight.shape

    def merged_weight(self) -> Tensor:
        """Give the weight with all its additions, in the weight's own dtype."""
        weight = self._full_weight()
        if not self.is_adapted:
            return weight
        merged = weight.float()
        for adapter in adapters_of(self):
            if adapter.strength:
                merged = merged + adapter.strength * self._merged(adapter)
        return merged.to(weight.dtype)

    def _full_weight(self) -> Tensor:
        """Give the weight as the numbers that it stands for."""
        return self.weight

    def _add_adapters(self, x: Tensor, out: Tensor) -> None:
        """Add in place what the adapters make of `x`; the first axis of both are the batch's rows.

        `out` is nobody else's: a sum that is a new tensor would cost its size again.
        """
        for adapter in adapters_of(self):
            for run in adapter.scale.runs:
                addition = self._product(adapter, x[run.rows])
                owned = self._owned(adapter, out[run.rows], addition)
                owned.add_(addition.to(out.dtype), alpha=adapter.gain * run.scale)

    def _product(self, adapter: Adapter, x: Tensor) -> Tensor:
        """Multiply an input by A, then by B."""
        raise NotImplementedError(f"{type(self).__name__} does not say what adapters make of x")

    def _owned(self, adapter: Adapter, out: Tensor, addition: Tensor) -> Tensor:  # noqa: ARG002
        """Give the part of the output that an adapter adds to."""
        return out

    def _merged(self, adapter: Adapter) -> Tensor:
        """Multiply B by A: float32, of the weight's shape."""
        raise NotImplementedError(f"{type(self).__name__} does not say how adapters add to it")


def adapters_of(layer: Adaptable) -> list[Adapter]:
    return (
        [each for each in layer.adapters if isinstance(each, Adapter)] if layer.is_adapted else []
    )


class Linear(Adaptable, nn.Linear):
    """A linear layer; an adapter may own a slice of its outputs.

    Where the weight is kept in float8, `weight_scale` [out, 1] says what its rows stand for. Where
    it is packed, inputs may have any dtype, and outputs have the weight's, or float32 of int8.
    `follows_gelu` says that inputs come out of a GELU, which helps to round them to int8.
    """

    weight_scale: Tensor
    is_float8 = False  # of the class, as `is_adapted`
    multiplies_in_float8 = False  # likewise; where it is not, the weight is cast back
    is_packed = False  # likewise
    int8_matrix: Int8Matrix | None = None  # likewise: the weight, where it is packed in int8
    follows_gelu = False  # likewise

    @property
    def weight_shape(self) -> torch.Size:
        return torch.Size((self.out_features, self.in_features))

    def keep_in_float8(self, matrix: Float8Matrix) -> None:
        """Compute with this matrix from now on; it is turned back at each call."""
        self.is_float8 = True
        self.weight = nn.Parameter(matrix.values, requires_grad=False)
        # not persistent: the state dict keeps torch's names
        self.register_buffer("weight_scale", matrix.scale, persistent=False)

    def pack(self, dtype: torch.dtype) -> None:
        """Lay the weight out once as oneDNN's products read it, which else happens at each call.

        For inference on the CPU, where it must stay: with gradients the weight is laid back at each
        call, and it takes none itself. torch neither copies nor saves it; `merged_weight` gives it
        as it was, rounded to `dtype`, be that float32, bfloat16 or int8.
        """
        weight = self._full_weight().detach()
        self.int8_matrix = Int8Matrix.of(weight) if dtype == torch.int8 else None
        self.is_packed = True
        if self.int8_matrix is not None:
            self.weight = nn.Parameter(self.int8_matrix.values, requires_grad=False)
            return
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), _PACKED_FOR_ROWS)
        self.weight = nn.Parameter(packed, requires_grad=False)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias.detach().to(dtype), self.bias.requires_grad)

    def forward(self, x: Tensor, rounded: Int8Rows | None = None) -> Tensor:
        """Multiply, and add the bias and what adapters say.

        `rounded` is what `rounded` makes of `x`, where another layer has asked already.
        """
        out = self._packed_product(x, None, rounded) if self.is_packed else self._plain_product(x)
        if self.is_adapted:
            self._add_adapters(x, out)
        return out

    def as_input(self, x: Tensor) -> Tensor:
        """Cast to the dtype that a packed product reads: once, where several layers read `x`."""
        if not self.is_packed or self.int8_matrix is not None:
            return x
        return x.to(self.weight.dtype)

    def rounded(self, x: Tensor) -> Int8Rows | None:
        """Give what a product in int8 reads, where it is one; likewise once."""
        if self.int8_matrix is None or torch.is_grad_enabled():
            return None
        return Int8Rows.of_gelu(x) if self.follows_gelu else Int8Rows.of(x)

    def with_gelu(self, x: Tensor, approximate: onednn.Gelu = "none") -> Tensor:
        """Give the GELU of what `forward` gives; a packed product takes it along.

        Of a product in int8 it is the exact one in any case: that is three times as fast, and the
        two differ by 0.0005 at most, much less than what the product's rounding changes.
        """
        if self.int8_matrix is not None:
            return F.gelu(self(x))
        if self.is_packed and not self.is_adapted and not torch.is_grad_enabled():
            return self._packed_product(x, approximate)
        return F.gelu(self(x), approximate=approximate)

    def _plain_product(self, x: Tensor) -> Tensor:
        if self.multiplies_in_float8:
            product = float8_products.multiply(x, self._matrix())
            return product if self.bias is None else product + self.bias
        weight = self._matrix().to_dtype(x.dtype) if self.is_float8 else self.weight
        if x.dtype == torch.float32 and onednn.can_take(x, weight):
            return onednn.linear(x, weight, self.bias)
        return F.linear(x, weight, self.bias)

    def _packed_product(
        self, x: Tensor, gelu: onednn.Gelu | None = None, rounded: Int8Rows | None = None
    ) -> Tensor:
        if torch.is_grad_enabled():  # a packed product has no gradient
            weight = self._full_weight()
            return F.linear(x.to(weight.dtype), weight, self.bias)
        rows = self.rounded(x) if rounded is None else rounded
        if self.int8_matrix is not None and rows is not None:
            product = self.int8_matrix.multiply(rows, self.bias)
            return product.view(*x.shape[:-1], self.out_features)
        return onednn.linear(self.as_input(x), self.weight, self.bias, gelu)

    def _product(self, adapter: Adapter, x: Tensor) -> Tensor:
        inner = F.linear(x.to(adapter.a.dtype), adapter.a)
        if len(adapter.a) == adapter.rank:
            return F.linear(inner, adapter.b)
        return F.linear(inner.unflatten(-1, (-1, adapter.rank)), adapter.b).flatten(-2)

    def _owned(self, adapter: Adapter, out: Tensor, addition: Tensor) -> Tensor:
        return out.narrow(-1, adapter.first_row, addition.shape[-1])

    def _merged(self, adapter: Adapter) -> Tensor:
        per_head = adapter.a.float().unflatten(0, (-1, adapter.rank))  # [n, r, in]
        rows = (adapter.b.float() @ per_head).flatten(0, 1)
        below = self.out_features - adapter.first_row - len(rows)
        return F.pad(rows, (0, 0, adapter.first_row, below))

    def _full_weight(self) -> Tensor:
        if self.int8_matrix is not None:
            return self.int8_matrix.to_float32()
        if self.is_packed:
            return self.weight.to_dense()
        return self._matrix().to_dtype(torch.float32) if self.is_float8 else self.weight

    def _matrix(self) -> Float8Matrix:
        return Float8Matrix(self.weight, self.weight_scale)


class Conv2d(Adaptable, nn.Conv2d):
    """A convolution."""

    def forward(self, images: Tensor) -> Tensor:
        out = super().forward(images)
        if self.is_adapted:
            self._add_adapters(images, out)
        return out

    def _product(self, adapter: Adapter, x: Tensor) -> Tensor:
        inner = self._conv_forward(x.to(adapter.a.dtype), adapter.a, None)
        return F.conv2d(inner, adapter.b[:, :, None, None])

    def _merged(self, adapter: Adapter) -> Tensor:
        return torch.einsum("or,rchw->ochw", adapter.b.float(), adapter.a.float())


class Embedding(Adaptable, nn.Embedding):
    """An embedding; its rows are the entries, so an adapter's B is as wide as they are."""

    def forward(self, ids: Tensor) -> Tensor:
        out = super().forward(ids)
        if self.is_adapted:
            self._add_adapters(ids, out)
        return out

    def _product(self, adapter: Adapter, x: Tensor) -> Tensor:
        return F.linear(F.embedding(x, adapter.a), adapter.b)

    def _merged(self, adapter: Adapter) -> Tensor:
        return adapter.a.float() @ adapter.b.float().T


def adaptable_layers(module: nn.Module) -> dict[str, Adaptable]:
    """Give the layers that can hold adapters, by name."""
    return {name: each for name, each in module.named_modules() if isinstance(each, Adaptable)}


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """Give the state dict of a module without adapters that computes what this one does.

    Raises ValueError for a module on the meta device, which has no weights.
    """
    if any(each.is_meta for each in module.parameters()):
        raise ValueError(f"this {type(module).__name__} is on the meta device: it has no weights")
    layers = adaptable_layers(module)
    weights = {
        _join(name, "weight"): each.merged_weight().detach() for name, each in layers.items()
    }
    added = tuple(_join(name, "adapters.") for name, each in layers.items() if each.is_adapted)
    state = module.state_dict()
    return {k: weights.get(k, v) for k, v in state.items() if not k.startswith(added)}


def _join(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name
