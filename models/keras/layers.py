"""What KerasHub knows a backbone's layers by, and how its variables look beside our parameters.

Each family says it in its own `keras_layers.py` as a tree of `Node`s; `flatten` puts the tree into
Keras' order, where a layer's position is its number in a LoRA file. Sources: keras-hub 0.32.0
(models/backbone.py) and keras 3.15.1 (saving/saving_lib.py, `Layer._flatten_layers`). Knows nothing
about files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

from torch import Tensor, nn

from models.checkpoints.preset_files import KerasObject
from models.layers.norm_folding import Fold


class Form(Protocol):
    """How a Keras variable and our parameter relate; both ways are linear, and may be views."""

    def to_ours(self, tensor: Tensor) -> Tensor: ...

    def to_keras(self, tensor: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class AsIs:
    """Biases, norms, embeddings."""

    def to_ours(self, tensor: Tensor) -> Tensor:
        return tensor

    def to_keras(self, tensor: Tensor) -> Tensor:
        return tensor


@dataclass(frozen=True, slots=True)
class DenseKernel:
    """Keras multiplies from the other side: [in, out] for our [out, in]."""

    def to_ours(self, tensor: Tensor) -> Tensor:
        return tensor.mT

    def to_keras(self, tensor: Tensor) -> Tensor:
        return tensor.mT


@dataclass(frozen=True, slots=True)
class ConvKernel:
    """[h, w, in, out] for our [out, in, h, w]."""

    def to_ours(self, tensor: Tensor) -> Tensor:
        return tensor.permute(3, 2, 0, 1).contiguous()

    def to_keras(self, tensor: Tensor) -> Tensor:
        return tensor.permute(2, 3, 1, 0)


@dataclass(frozen=True, slots=True)
class ProjectionKernel:
    """Of queries, keys and values: [D, n, d] for our [n·d, D]."""

    num_heads: int

    def to_ours(self, tensor: Tensor) -> Tensor:
        _require_heads(tensor.shape[1:2], self.num_heads)
        return tensor.flatten(1).T

    def to_keras(self, tensor: Tensor) -> Tensor:
        kernel: Tensor = tensor.T.unflatten(1, (self.num_heads, -1))
        return kernel


@dataclass(frozen=True, slots=True)
class ProjectionBias:
    """Of queries, keys and values: [n, d] for our [n·d]."""

    num_heads: int

    def to_ours(self, tensor: Tensor) -> Tensor:
        _require_heads(tensor.shape[:1], self.num_heads)
        return tensor.flatten()

    def to_keras(self, tensor: Tensor) -> Tensor:
        bias: Tensor = tensor.unflatten(0, (self.num_heads, -1))
        return bias


@dataclass(frozen=True, slots=True)
class OutputKernel:
    """Of an attention's output: [n, d, D] for our [D, n·d]."""

    num_heads: int

    def to_ours(self, tensor: Tensor) -> Tensor:
        _require_heads(tensor.shape[:1], self.num_heads)
        return tensor.flatten(0, 1).mT

    def to_keras(self, tensor: Tensor) -> Tensor:
        kernel: Tensor = tensor.T.unflatten(0, (self.num_heads, -1))
        return kernel


def _require_heads(axis: Sequence[int], num_heads: int) -> None:
    """Refuse heads that are cut otherwise: flat, they would fit, and mean something else."""
    if list(axis) != [num_heads]:
        raise ValueError(f"the axis of heads is {list(axis)}, not {num_heads}")


@dataclass(frozen=True, slots=True)
class KerasVariable:
    """A variable of one layer, in the order of the layer's `vars`."""

    parameter: str | None  # our name in the state dict; None where we have no such parameter
    form: Form = AsIs()
    constant: Tensor | None = field(default=None, compare=False)  # what it is where we have none


@dataclass(frozen=True, slots=True)
class Node:
    """A layer with what it holds, in the order in which KerasHub creates it."""

    name: str
    path: str  # relative to the parent's
    module: str | None = None
    variables: tuple[KerasVariable, ...] = ()
    children: Sequence[Node] = ()
    norms: tuple[str, ...] = ()
    fold: Fold | None = None

    def at(self, path: str) -> Node:
        """Place the node elsewhere."""
        return replace(self, path=path)


@dataclass(frozen=True, slots=True)
class KerasLayer:
    """A layer with weights, its own or of layers inside it."""

    position: int  # among all layers with weights, in Keras' flattened order
    name: str  # in a process that has built nothing else: "query", "dense_9", "attention_output"
    path: str  # in model.weights.h5: "layers/…/mha/query_dense"
    module: str | None  # our name: "encoder_layers.0.mha.query"; None where we have no such module
    variables: tuple[KerasVariable, ...]
    norms: tuple[str, ...] = ()  # paths of norms whose gamma and beta our layer took over
    fold: Fold | None = None  # what it took over, if it matters

    def stored_name(self, index: int) -> str:
        """Name a variable as model.weights.h5 does."""
        return stored_name(self.path, index)


def stored_name(path: str, index: int) -> str:
    """Name a variable as model.weights.h5 does."""
    return f"{path}/vars/{index}"


def flatten(top_level: Sequence[Node]) -> tuple[KerasLayer, ...]:
    """Put every layer before those inside it, and these in reverse order of creation."""
    return tuple(
        KerasLayer(position, node.name, path, node.module, node.variables, node.norms, node.fold)
        for position, (node, path) in enumerate(_walk(top_level, "layers/"))
    )


def _walk(nodes: Sequence[Node], prefix: str) -> Iterator[tuple[Node, str]]:
    for node in nodes:
        path = prefix + node.path
        yield node, path
        yield from _walk(node.children[::-1], f"{path}/")


def dense(name: str, path: str, module: str, has_bias: bool = True) -> Node:
    """Describe a Dense layer that is a Linear of ours."""
    bias = (KerasVariable(f"{module}.bias"),) if has_bias else ()
    kernel = KerasVariable(f"{module}.weight", DenseKernel())
    return Node(name, path, module, (kernel, *bias))


def layer_norm(name: str, path: str, module: str) -> Node:
    """Describe a LayerNormalization that is a LayerNorm of ours."""
    return Node(
        name, path, module, (KerasVariable(f"{module}.weight"), KerasVariable(f"{module}.bias"))
    )


def embedding(name: str, path: str, module: str) -> Node:
    """Describe any of Keras' embeddings that is an Embedding of ours."""
    return Node(name, path, module, (KerasVariable(f"{module}.weight"),))


def counted(name: str, index: int) -> str:
    """Count as Keras does: dense, dense_1, dense_2."""
    return f"{name}_{index}" if index else name


def snake_case(class_name: str) -> str:
    """Name a layer as Keras does: ViTBackbone is vi_t_backbone, FNetBackbone f_net_backbone."""
    apart = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", class_name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", apart).lower()


class KerasModel(nn.Module):
    """A module that KerasHub knows too."""

    keras_module: ClassVar[str]  # where KerasHub defines the class of this name
    keras_tasks: ClassVar[tuple[str, ...]]  # KerasHub's tasks for it, sorted

    def get_config(self) -> dict[str, object]:
        """Give the constructor's arguments, as JSON holds them."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it was built")

    def keras_layers(self) -> tuple[KerasLayer, ...]:
        """List KerasHub's layers with weights, in order of position."""
        raise NotImplementedError(f"{type(self).__name__} does not say what KerasHub calls it")

    def to_keras_object(self) -> KerasObject:
        """Serialise the configuration in KerasHub's form."""
        class_name = type(self).__name__
        return KerasObject(
            module=self.keras_module,
            class_name=class_name,
            config=self.get_config(),
            registered_name=f"keras_hub>{class_name}",
        )
