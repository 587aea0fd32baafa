"""What every format says of a backbone on disk. Knows nothing about any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.weights import Recipe, Weights, identity_recipes, ignore_none

if TYPE_CHECKING:
    from models.backbone import Backbone


@dataclass(frozen=True, slots=True)
class StoredBackbone:
    """A backbone on disk: how to build it, and how to give it its weights."""

    class_name: str  # "ViTBackbone"
    config: dict[str, object]  # arguments of its constructor
    open_weights: Callable[[], Weights]
    recipes: Callable[[Backbone], Mapping[str, Recipe]] = identity_recipes
    is_ignored: Callable[[str], bool] = ignore_none  # stored tensors of a head
