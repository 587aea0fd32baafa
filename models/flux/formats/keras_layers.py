"""KerasHub's layers of a Flux backbone.

KerasHub names none of them, so Keras counts, and `_Layers` counts along in the order of its
constructors. Its norms have a gamma and a beta, which our modulations take over. Source:
keras_hub/src/models/flux/flux_model.py and flux_layers.py (keras-hub 0.32.0).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import nn

from models.keras.layers import KerasLayer, KerasVariable, Node, counted, dense, flatten
from models.layers.norm_folding import Fold, FoldingLinear


class _FluxArguments(Protocol):
    """What of a `FluxBackbone`, which imports this module, decides about its layers."""

    depth: int
    depth_single_blocks: int
    guidance_embed: bool
    hidden_size: int
    use_bias: bool

    def get_submodule(self, target: str) -> nn.Module: ...


SCALE = "scale"  # our parameter of an RMS norm


def list_layers(backbone: _FluxArguments) -> tuple[KerasLayer, ...]:
    """List the layers with weights, in order of position."""
    layers = _Layers(backbone)
    inputs = _inputs(backbone, layers)
    doubles = [layers.double_block(index) for index in range(backbone.depth)]
    singles = [layers.single_block(index) for index in range(backbone.depth_single_blocks)]
    return flatten((*inputs, *doubles, *singles, layers.last_layer()))


def _inputs(backbone: _FluxArguments, layers: _Layers) -> list[Node]:
    """Embed the inputs: named as constructed, but ordered, and so found, as first called."""
    image = layers.name("dense")
    time, vector = layers.embedder("time_in"), layers.embedder("vector_in")
    guidance = [layers.embedder("guidance_in")] if backbone.guidance_embed else []
    text = layers.name("dense")
    embedders = [
        embedder.at(counted("mlp_embedder", index))
        for index, embedder in enumerate((time, *guidance, vector))
    ]
    if backbone.depth > 0:
        return [*embedders, dense(image, "dense", "img_in"), dense(text, "dense_1", "txt_in")]
    # Without double blocks both are first called where text and image are joined
    projections = [dense(text, "dense", "txt_in"), dense(image, "dense_1", "img_in")]
    if backbone.depth_single_blocks > 0 and backbone.guidance_embed:
        return [*embedders[:2], *projections, embedders[2]]
    return [*projections, *embedders]


@dataclass(frozen=True, slots=True)
class _StreamPaths:
    """Where one stream of a double block is stored."""

    modulation: str
    norm1: str
    attention: str
    norm2: str
    mlp: str


_IMAGE = _StreamPaths("image_mod", "image_norm1", "image_attn", "image_norm2", "image_mlp")
# Keras looks at a block's attributes in the order of the alphabet, "layers" before "text_mod"
_TEXT = _StreamPaths(
    "layers/modulation_1",
    "layers/layer_normalization_2",
    "layers/self_attention_1",
    "layers/layer_normalization_3",
    "layers/sequential_1",
)


@dataclass(frozen=True, slots=True)
class _Layers:
    """Describe layers in the order in which KerasHub constructs them, counting their names."""

    backbone: _FluxArguments
    counts: Counter[str] = field(default_factory=Counter)

    def name(self, kind: str) -> str:
        self.counts[kind] += 1
        return counted(kind, self.counts[kind] - 1)

    def embedder(self, ours: str) -> Node:
        name = self.name("mlp_embedder")
        children = (
            self._dense("input_layer", f"{ours}.in_layer"),
            self._dense("layers/dense_1", f"{ours}.out_layer"),
        )
        return Node(name, "mlp_embedder", ours, children=children)

    def double_block(self, index: int) -> Node:
        ours = f"double_blocks.{index}"
        name, path = self.name("double_stream_block"), counted("double_stream_block", index)
        children = (
            *self._stream(_IMAGE, f"{ours}.img", path),
            *self._stream(_TEXT, f"{ours}.txt", path),
        )
        return Node(name, path, ours, children=children)

    def single_block(self, index: int) -> Node:
        ours = f"single_blocks.{index}"
        name, path = self.name("single_stream_block"), counted("single_stream_block", index)
        norm = "layers/layer_normalization"
        linears = (
            self._dense("layers/dense", f"{ours}.linear1"),
            self._dense("layers/dense_1", f"{ours}.linear2"),
        )
        qk_norm = self._qk_norm("layers/qk_norm", f"{ours}.norm")
        modulation = f"{ours}.modulation"
        children = (
            *linears,
            qk_norm,
            self._norm(norm, f"{modulation}.lin"),
            self._modulation("layers/modulation", modulation, _below(path, norm)),
        )
        return Node(name, path, ours, children=children)

    def last_layer(self) -> Node:
        ours, path, norm = "final_layer", "last_layer", "layers/layer_normalization"
        modulation = f"{ours}.adaLN_modulation"
        children = (
            self._norm(norm, f"{modulation}.1"),
            self._dense("layers/dense", f"{ours}.linear"),
            Node(
                self.name("sequential"),
                "adaLN_modulation",
                modulation,
                children=(self._folding("layers/dense", f"{modulation}.1", _below(path, norm)),),
            ),
        )
        return Node("last_layer", path, ours, children=children)

    def _stream(self, paths: _StreamPaths, ours: str, block: str) -> list[Node]:
        modulation = f"{ours}_mod"
        norms = _below(block, paths.norm1, paths.norm2)
        return [
            self._modulation(paths.modulation, modulation, norms),
            self._norm(paths.norm1, f"{modulation}.lin", branch=0),
            self._attention(paths.attention, f"{ours}_attn"),
            self._norm(paths.norm2, f"{modulation}.lin", branch=1),
            self._mlp(paths.mlp, f"{ours}_mlp"),
        ]

    def _dense(self, path: str, ours: str, has_bias: bool = True) -> Node:
        return dense(self.name("dense"), path, ours, has_bias)

    def _norm(self, path: str, folded_into: str, branch: int = 0) -> Node:
        """Describe a norm whose gamma and beta a linear layer of ours took over."""
        fold = self._fold(folded_into)
        width = self.backbone.hidden_size
        gamma = torch.ones(width, device="cpu") if fold is None else fold.gamma[branch]
        beta = torch.zeros(width, device="cpu") if fold is None else fold.beta[branch]
        variables = (KerasVariable(None, constant=gamma), KerasVariable(None, constant=beta))
        return Node(self.name("layer_normalization"), path, variables=variables)

    def _modulation(self, path: str, ours: str, norms: tuple[str, ...]) -> Node:
        name = self.name("modulation")
        children = (self._folding("layers/dense", f"{ours}.lin", norms),)
        return Node(name, path, ours, children=children)

    def _folding(self, path: str, ours: str, norms: tuple[str, ...]) -> Node:
        return replace(self._dense(path, ours), norms=norms, fold=self._fold(ours))

    def _fold(self, ours: str) -> Fold | None:
        linear = self.backbone.get_submodule(ours)
        assert isinstance(linear, FoldingLinear), f"{ours} takes no norms over: this is a bug"
        return linear.fold

    def _attention(self, path: str, ours: str) -> Node:
        name = self.name("self_attention")
        children = (
            self._dense("layers/dense", f"{ours}.qkv", self.backbone.use_bias),
            self._qk_norm("layers/qk_norm", f"{ours}.norm"),
            self._dense("layers/dense_1", f"{ours}.proj"),
        )
        return Node(name, path, ours, children=children)

    def _qk_norm(self, path: str, ours: str) -> Node:
        name = self.name("qk_norm")
        children = tuple(
            Node(
                self.name("rms_normalization"),
                norm,
                f"{ours}.{norm}",
                (KerasVariable(f"{ours}.{norm}.{SCALE}"),),
            )
            for norm in ("query_norm", "key_norm")
        )
        return Node(name, path, ours, children=children)

    def _mlp(self, path: str, ours: str) -> Node:
        name = self.name("sequential")
        children = (
            self._dense("layers/dense", f"{ours}.0"),
            self._dense("layers/dense_1", f"{ours}.2"),
        )
        return Node(name, path, ours, children=children)


def _below(block: str, *norms: str) -> tuple[str, ...]:
    return tuple(f"layers/{block}/{norm}" for norm in norms)
