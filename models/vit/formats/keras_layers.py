"""KerasHub's layers of a ViT backbone.

Source: keras_hub/src/models/vit/vit_backbone.py and vit_layers.py (keras-hub 0.32.0).
"""

from __future__ import annotations

from typing import Protocol

from models.keras.layers import (
    AsIs,
    ConvKernel,
    Form,
    KerasLayer,
    KerasVariable,
    Node,
    OutputKernel,
    ProjectionBias,
    ProjectionKernel,
    counted,
    dense,
    embedding,
    flatten,
    layer_norm,
)


class _ViTArguments(Protocol):
    """What of a `ViTBackbone`, which imports this module, decides about its layers."""

    num_heads: int
    num_layers: int
    use_class_token: bool
    use_mha_bias: bool
    use_mlp_bias: bool
    use_patch_bias: bool


def list_layers(backbone: _ViTArguments) -> tuple[KerasLayer, ...]:
    """List the layers with weights, in order of position."""
    blocks = tuple(_block(backbone, index) for index in range(backbone.num_layers))
    final = layer_norm("ln", "layer_norm", "layer_norm")
    encoder = Node("vit_encoder", "vi_t_encoder", children=(*blocks, final))
    return flatten((_patching(backbone), encoder))


def _patching(backbone: _ViTArguments) -> Node:
    ours = "patching"
    bias = (KerasVariable(f"{ours}.patch_embedding.bias"),) if backbone.use_patch_bias else ()
    kernel = KerasVariable(f"{ours}.patch_embedding.weight", ConvKernel())
    return Node(
        "vit_patching_and_embedding",
        "vi_t_patching_and_embedding",
        ours,
        (KerasVariable(f"{ours}.class_token"),) if backbone.use_class_token else (),
        (
            Node("patch_embedding", "patch_embedding", f"{ours}.patch_embedding", (kernel, *bias)),
            embedding("position_embedding", "position_embedding", f"{ours}.position_embedding"),
        ),
    )


def _block(backbone: _ViTArguments, index: int) -> Node:
    ours = f"encoder_layers.{index}"
    has_bias = backbone.use_mlp_bias
    mlp = Node(
        "mlp",
        "mlp",
        children=(
            dense("dense_1", "dense_1", f"{ours}.dense_1", has_bias),
            dense("dense_2", "dense_2", f"{ours}.dense_2", has_bias),
        ),
    )
    children = (
        layer_norm("ln_1", "layer_norm_1", f"{ours}.layer_norm_1"),
        _attention(backbone, f"{ours}.mha"),
        layer_norm("ln_2", "layer_norm_2", f"{ours}.layer_norm_2"),
        mlp,
    )
    path = f"encoder_layers/{counted('vi_t_encoder_block', index)}"
    return Node(f"transformer_block_{index + 1}", path, ours, children=children)


def _attention(backbone: _ViTArguments, ours: str) -> Node:
    heads, has_bias = backbone.num_heads, backbone.use_mha_bias

    def einsum_dense(name: str, path: str, kernel: Form, bias: Form) -> Node:
        variables = (
            KerasVariable(f"{ours}.{name}.weight", kernel),
            *((KerasVariable(f"{ours}.{name}.bias", bias),) if has_bias else ()),
        )
        return Node(name, path, f"{ours}.{name}", variables)

    projections = tuple(
        einsum_dense(name, f"{name}_dense", ProjectionKernel(heads), ProjectionBias(heads))
        for name in ("query", "key", "value")
    )
    output = einsum_dense("attention_output", "output_dense", OutputKernel(heads), AsIs())
    return Node("mha", "mha", ours, children=(*projections, output))
