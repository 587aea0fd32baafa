"""Drawn scenes and their renderings as tensors."""

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from training.shapes_world import Scene, complete, draw_said, render


def draw_scenes(count: int, rng: random.Random) -> list[Scene]:
    """Draw `count` complete scenes that the image model may be trained on."""
    return [complete(draw_said(rng), rng) for _ in range(count)]


def render_pool(scenes: Sequence[Scene], side: int, rng: random.Random) -> Tensor:
    """Render the scenes, [N, 3, H, W] uint8."""
    pool = torch.empty((len(scenes), 3, side, side), dtype=torch.uint8)
    for i, scene in enumerate(scenes):
        pool[i] = torch.from_numpy(np.array(render(scene, rng, side))).permute(2, 0, 1)
    return pool
