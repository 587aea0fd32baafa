"""From a backbone's tokens to one logit per class.

The layers that KerasHub's `ViTImageClassifier` (keras_hub/src/models/vit/vit_image_classifier.py,
0.32.0) puts on its backbone. Knows nothing about files.
"""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict
from torch import Tensor, nn

from models.layers.arguments import Rate, Size


def _name(activation: object) -> object:
    """Read Keras' serialised function by its name."""
    return activation.get("config") if isinstance(activation, dict) else activation


class TaskConfig(BaseModel):
    """The `config` of `task.json`, without the nested backbone and preprocessor."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    num_classes: Size
    pooling: Literal["token", "gap"] = "token"  # the first token, or the mean over all
    intermediate_dim: Size | None = None
    # What KerasHub applies to the logits; kept for it alone, the head gives logits either way
    activation: Annotated[str | None, BeforeValidator(_name)] = None
    dropout: Rate = 0.0  # in training, before the last layer


class ClassificationHead(nn.Module):
    """Pool, then one or two dense layers."""

    def __init__(self, width: int, config: TaskConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.intermediate_dim
        self.pre_logits = None if inner is None else nn.Linear(width, inner)
        self.dropout = nn.Dropout(config.dropout)
        self.predictions = nn.Linear(inner or width, config.num_classes)

    def forward(self, sequence_output: Tensor) -> Tensor:
        """[B, L, D] to logits [B, K]."""
        is_token = self.config.pooling == "token"
        pooled = sequence_output[:, 0] if is_token else sequence_output.mean(dim=1)
        if self.pre_logits is not None:
            pooled = torch.tanh(self.pre_logits(pooled))
        logits: Tensor = self.predictions(self.dropout(pooled))
        return logits
