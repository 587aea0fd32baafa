"""Make the preset `vit_shapes`: `python -m training.vit_shapes --work-dir DIR`.

Every batch is rendered afresh from all scenes and then worn as a picture may be when it comes back
from a painter, a codec or a camera: bent, shifted, blurred, blotched, tinted, noisy.
"""

import argparse
import io
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from models.vit.backbone import ViTBackbone
from models.vit.classification_head import ClassificationHead, TaskConfig
from models.vit.image_classifier import ImageClassifier
from models.vit.image_converter import ImageConverter, ImageConverterConfig
from training.run import Run, train
from training.shapes_world import all_scenes, labels, render

logger = logging.getLogger(__name__)

SIDE = 64  # pixels that the backbone sees
RENDER_SIDE = 128  # pixels that the image model paints
BATCH_SIZE = 96
JPEG_SHARE = 0.3
HALF_RANGE = 127.5  # grey levels: pixels become [-1, 1]


def build_classifier() -> ImageClassifier:
    names = tuple(labels())
    backbone = ViTBackbone(
        image_shape=(SIDE, SIDE, 3),
        patch_size=8,
        num_layers=4,
        num_heads=4,
        hidden_dim=96,
        mlp_dim=192,
    )
    head = ClassificationHead(96, TaskConfig(num_classes=len(names), pooling="gap"))
    converter = ImageConverterConfig(
        image_size=(SIDE, SIDE), scale=1 / HALF_RANGE, offset=-1.0, antialias=True
    )
    return ImageClassifier(backbone, head, ImageConverter(converter), names)


@dataclass(frozen=True, slots=True)
class Batch:
    images: Tensor  # [B, H, W, 3] as the converter gives them
    class_ids: Tensor  # [B]


class Pictures:
    """Worn renderings without end; the seed of a batch decides about all of it."""

    def __init__(self) -> None:
        self._scenes = list(all_scenes())
        self._class_ids = {name: i for i, name in enumerate(labels())}

    def batch(self, seed: int, size: int) -> Batch:
        rng = random.Random(seed)
        scenes = rng.choices(self._scenes, k=size)
        pictures = [_coded(render(scene, rng, RENDER_SIDE), rng) for scene in scenes]
        pixels = torch.from_numpy(np.stack([np.array(picture) for picture in pictures]))
        images = F.interpolate(
            pixels.permute(0, 3, 1, 2).float() / HALF_RANGE - 1.0,
            (SIDE, SIDE),
            mode="bilinear",
            antialias=True,
        )
        ids = [self._class_ids[scene.label] for scene in scenes]
        worn = wear(images, torch.Generator().manual_seed(seed))
        return Batch(worn.permute(0, 2, 3, 1), torch.tensor(ids))


def _coded(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Send some pictures through JPEG."""
    if rng.random() >= JPEG_SHARE:
        return picture
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=rng.randint(30, 95))
    return Image.open(encoded).convert("RGB")


def wear(images: Tensor, generator: torch.Generator) -> Tensor:
    """Bend, move, blur, blotch, tint and noise pictures [B, 3, H, W] in [-1, 1]."""

    def even(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    size = len(images)
    grid = F.affine_grid(_motions(even, size), list(images.shape), align_corners=False)
    bends = torch.randn((size, 2, 5, 5), generator=generator) * even(0.0, 0.022, size, 1, 1, 1)
    bends = F.interpolate(bends, images.shape[-2:], mode="bicubic", align_corners=False)
    moved = F.grid_sample(
        images, grid + bends.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )
    blurred = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blotches = torch.randn((size, 3, 8, 8), generator=generator) * even(0.0, 0.06, size, 1, 1, 1)
    tint = even(-0.08, 0.08, size, 3, 1, 1)  # 10 grey levels
    noise = torch.randn(images.shape, generator=generator) * even(0.0, 0.07, size, 1, 1, 1)
    softened = torch.lerp(moved, blurred, even(0.0, 1.0, size, 1, 1, 1))
    worn = softened + F.interpolate(blotches, images.shape[-2:], mode="bilinear") + tint + noise
    return worn.clamp(-1.0, 1.0)


def _motions(even: Callable[..., Tensor], size: int) -> Tensor:
    """Turn, stretch and shift a little: matrices [B, 2, 3]."""
    angle = even(-0.14, 0.14, size)  # 8 degrees, beyond those of the world
    stretch = even(0.88, 1.12, size, 2)
    rows = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), dim=1)
    turned = rows.view(size, 2, 2) * stretch[:, None, :]
    return torch.cat((turned, even(-0.08, 0.08, size, 2, 1)), dim=2)


def train_classifier(classifier: ImageClassifier, run: Run) -> float:
    """Train in place; return the seconds that it took."""
    pictures = Pictures()
    module = nn.ModuleList([classifier.backbone, classifier.head]).train()

    def loss_at(step: int) -> Tensor:
        batch = pictures.batch(seed=step, size=BATCH_SIZE)
        logits = classifier.head(classifier.backbone(images=batch.images))
        return F.cross_entropy(logits, batch.class_ids)

    return train(run, module, loss_at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True, help="for the checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="the directory of the preset")
    parser.add_argument("--num-steps", type=int, default=3200)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(1)
    classifier = build_classifier()
    run = Run("vit_shapes", arguments.num_steps, 1.5e-3, 0.05, arguments.work_dir)
    seconds = train_classifier(classifier, run)
    classifier.save_to_preset(arguments.output, weights_format="safetensors")
    logger.info("vit_shapes saved=%s seconds=%.0f", arguments.output, seconds)


if __name__ == "__main__":
    main()
