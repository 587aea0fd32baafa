"""Make the preset `vit_shapes`: `python -m training.vit_shapes --work-dir DIR --output DIR`.

While it is trained, the head adds up a score for the colour and one for the shape, so that every
image of a shape teaches that shape in all colours. In the end the sums become the weights of one
dense layer, as the preset has it.
"""

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.vit.backbone import ViTBackbone
from models.vit.classification_head import ClassificationHead, TaskConfig
from models.vit.image_classifier import ImageClassifier
from models.vit.image_converter import ImageConverter, ImageConverterConfig
from training.own_images import load_own_images
from training.run import Run, train
from training.shapes_world import COLOURS, SHAPES
from training.vit_images import HALF_RANGE, LABELS, SIDE, DrawnImage, draw_batch

logger = logging.getLogger(__name__)

WIDTH, PATCH_SIZE = 96, 8
BATCH_SIZE = 40


def build_classifier() -> ImageClassifier:
    backbone = ViTBackbone(
        image_shape=(SIDE, SIDE, 3),
        patch_size=PATCH_SIZE,
        num_layers=4,
        num_heads=4,
        hidden_dim=WIDTH,
        mlp_dim=192,
    )
    head = ClassificationHead(WIDTH, TaskConfig(num_classes=len(LABELS), pooling="gap"))
    converter = ImageConverterConfig(
        image_size=(SIDE, SIDE), scale=1 / HALF_RANGE, offset=-1.0, antialias=True
    )
    return ImageClassifier(backbone, head, ImageConverter(converter), LABELS)


@torch.no_grad()
def warm_start(classifier: ImageClassifier, preset: Path) -> None:
    """Copy an earlier preset's backbone, its positions stretched to the grid of this one.

    Its head as well, where that has the same labels.
    """
    earlier = ImageClassifier.from_preset(preset)
    if earlier.labels == classifier.labels:
        classifier.head.load_state_dict(earlier.head.state_dict())
    weights = earlier.backbone.state_dict()
    name = "patching.position_embedding.weight"
    first, grid = weights[name][:1], weights[name][1:]  # the class token's, then the patches'
    side, new_side = (round(math.sqrt(n)) for n in (len(grid), SIDE * SIDE // PATCH_SIZE**2))
    rows = grid.T.reshape(1, WIDTH, side, side)
    stretched = F.interpolate(rows, (new_side, new_side), mode="bicubic", align_corners=False)
    weights[name] = torch.cat((first, stretched.reshape(WIDTH, new_side * new_side).T))
    classifier.backbone.load_state_dict(weights)


class FactoredHead(nn.Module):
    """Logits of LABELS: a colour's and a shape's added up, then those of the other labels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.colours = nn.Linear(width, len(COLOURS))
        self.shapes = nn.Linear(width, len(SHAPES))
        self.others = nn.Linear(width, len(LABELS) - len(COLOURS) * len(SHAPES))

    def forward(self, sequence_output: Tensor) -> Tensor:
        """[B, L, D] to logits [B, K]."""
        pooled = sequence_output.mean(dim=1)
        pairs = self.colours(pooled)[:, :, None] + self.shapes(pooled)[:, None, :]
        return torch.cat((pairs.flatten(1), self.others(pooled)), dim=1)

    @torch.no_grad()
    def copy_from(self, dense: nn.Linear) -> None:
        """Begin with what is nearest to a dense layer: the same logits, if it is made of sums."""
        num_pairs = len(COLOURS) * len(SHAPES)
        for name, values in dense.named_parameters():
            pairs, others = values[:num_pairs], values[num_pairs:]
            pairs = pairs.unflatten(0, (len(COLOURS), len(SHAPES)))
            half = pairs.mean(dim=(0, 1)) / 2
            self.colours.get_parameter(name).copy_(pairs.mean(dim=1) - half)
            self.shapes.get_parameter(name).copy_(pairs.mean(dim=0) - half)
            self.others.get_parameter(name).copy_(others)

    @torch.no_grad()
    def copy_into(self, dense: nn.Linear) -> None:
        """Make a dense layer that gives the same logits."""
        colours, shapes = self.colours, self.shapes
        weights = colours.weight[:, None, :] + shapes.weight[None, :, :]  # [11, 10, D]
        biases = colours.bias[:, None] + shapes.bias[None, :]
        dense.weight.copy_(torch.cat((weights.flatten(0, 1), self.others.weight)))
        dense.bias.copy_(torch.cat((biases.flatten(), self.others.bias)))


def train_classifier(
    classifier: ImageClassifier, run: Run, own: Sequence[DrawnImage] = ()
) -> float:
    """Train in place, on images that `flux_shapes` painted as well; return the seconds it took."""
    backbone, head = classifier.backbone, FactoredHead(WIDTH)
    head.copy_from(classifier.head.predictions)
    module = nn.ModuleList([backbone, head]).train()

    def loss_at(step: int) -> Tensor:
        batch = draw_batch(step, BATCH_SIZE, own)
        logits = head(backbone(images=batch.images))
        if step % 100 == 99:
            right = (logits.argmax(dim=1) == batch.class_ids).float().mean().item()
            logger.info("vit_shapes step=%d right=%.3f", step + 1, right)
        return F.cross_entropy(logits, batch.class_ids)

    seconds = train(run, module, loss_at)
    head.copy_into(classifier.head.predictions)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True, help="for the checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="the directory of the preset")
    parser.add_argument("--num-steps", type=int, default=2800)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--start-from", type=Path, help="the directory of an earlier vit_shapes")
    parser.add_argument(
        "--own-images", type=Path, nargs="*", default=[], metavar="FILE",
        help="painted_N.pt of the work directory of training.flux_shapes",
    )  # fmt: skip
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(1)
    classifier = build_classifier()
    if arguments.start_from is not None:
        warm_start(classifier, arguments.start_from)
    matrices = [p for p in classifier.backbone.encoder_layers.parameters() if p.ndim == 2]
    rate, work_dir = arguments.learning_rate, arguments.work_dir
    run = Run("vit_shapes", arguments.num_steps, rate, 0.05, work_dir, matrices)
    seconds = train_classifier(classifier, run, load_own_images(arguments.own_images, work_dir))
    classifier.save_to_preset(arguments.output, weights_format="safetensors")
    logger.info("vit_shapes saved=%s seconds=%.0f", arguments.output, seconds)


if __name__ == "__main__":
    main()
