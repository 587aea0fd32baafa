"""Pools of rendered scenes as tensors."""

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from training.shapes_world import Scene, all_scenes, render


def seen_scenes() -> list[Scene]:
    """Every scene that the image model may be trained on."""
    return [scene for scene in all_scenes() if not scene.is_held_out]


def draw_scenes(
    count: int, rng: random.Random, scenes: Sequence[Scene] | None = None
) -> list[Scene]:
    """Draw `count` scenes, by default of the seen ones, each as often as the others."""
    deck = list(seen_scenes() if scenes is None else scenes)
    drawn: list[Scene] = []
    while len(drawn) < count:
        rng.shuffle(deck)
        drawn += deck
    return drawn[:count]


def render_pool(scenes: Sequence[Scene], side: int, rng: random.Random) -> Tensor:
    """Render the scenes, [N, 3, H, W] uint8."""
    pool = torch.empty((len(scenes), 3, side, side), dtype=torch.uint8)
    for i, scene in enumerate(scenes):
        pool[i] = torch.from_numpy(np.array(render(scene, rng, side))).permute(2, 0, 1)
    return pool
