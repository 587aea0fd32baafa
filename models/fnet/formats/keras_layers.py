"""KerasHub's layers of an FNet backbone.

Source: keras_hub/src/models/f_net/f_net_backbone.py and layers/modeling/f_net_encoder.py
(keras-hub 0.32.0).
"""

from __future__ import annotations

from typing import Protocol

from models.keras.layers import KerasLayer, Node, counted, dense, embedding, flatten, layer_norm


class _FNetArguments(Protocol):
    """What of a `FNetBackbone`, which imports this module, decides about its layers."""

    num_layers: int


def list_layers(backbone: _FNetArguments) -> tuple[KerasLayer, ...]:
    """List the layers with weights, in order of position."""
    inputs = (
        embedding("token_embedding", "reversible_embedding", "embeddings.token_embedding"),
        embedding("position_embedding", "position_embedding", "embeddings.position_embedding"),
        embedding("segment_embedding", "embedding", "embeddings.segment_embedding"),
        layer_norm("embeddings_layer_norm", "layer_normalization", "embeddings.layer_norm"),
        dense("embedding_projection", "dense", "embeddings.projection"),
    )
    encoder = (_encoder_layer(index) for index in range(backbone.num_layers))
    return flatten((*inputs, *encoder, dense("pooled_dense", "dense_1", "pooled_dense")))


def _encoder_layer(index: int) -> Node:
    ours = f"encoder_layers.{index}"
    children = (
        layer_norm("mixing_layer_norm", "_mixing_layer_norm", f"{ours}.mixing_layer_norm"),
        layer_norm("output_layer_norm", "_output_layer_norm", f"{ours}.output_layer_norm"),
        dense("intermediate_dense", "_intermediate_dense", f"{ours}.intermediate_dense"),
        dense("output_dense", "_output_dense", f"{ours}.output_dense"),
    )
    path = counted("f_net_encoder", index)
    return Node(f"f_net_layer_{index}", path, ours, children=children)
