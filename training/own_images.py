"""Images that `flux_shapes` painted, for `vit_shapes` to learn from.

They are those of its rounds of correction (see `correction`) that show what their sentences say;
what that is, the judge of pixels says.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from models.flux.text_to_image import TextToImage
from training import image_flow
from training.correction import Painted
from training.geometry import detect_shapes
from training.run import save_whole
from training.segmentation import Pixels
from training.shapes_world import Item
from training.vit_images import SEVERAL, SIDE, DrawnImage

_DECODE_BATCH_SIZE = 32


def load_own_images(painted: Sequence[Path], work_dir: Path) -> list[DrawnImage]:
    """Decode the right images of `painted_N.pt` with the bundled decoder, and judge them again.

    Those that show nothing to it are left out. What was decoded once is kept in the directory.
    """
    if not painted:
        return []
    file = work_dir / "own_images.pt"
    if not file.exists():
        work_dir.mkdir(parents=True, exist_ok=True)
        pipeline = TextToImage.from_preset("flux_shapes")
        decoded = (pixels for rounds in painted for pixels in _decoded(pipeline, rounds))
        drawn = [own for pixels in tqdm(decoded, "own images") if (own := _labelled(pixels))]
        images = torch.from_numpy(np.stack([np.asarray(own.image) for own in drawn]))
        save_whole((images, [own.label for own in drawn], [own.radius for own in drawn]), file)
    images, names, radii = torch.load(file, weights_only=True)
    return [
        DrawnImage(Image.fromarray(pixels), name, radius)
        for pixels, name, radius in zip(images.numpy(), names, radii, strict=True)
    ]


def _decoded(pipeline: TextToImage, file: Path) -> Iterator[Pixels]:
    right = Painted(*torch.load(file, weights_only=True, mmap=True)).right
    for patches in right.split(_DECODE_BATCH_SIZE):
        yield from pipeline.decode(patches.float(), image_flow.SIDE, image_flow.SIDE)


def _labelled(pixels: Pixels) -> DrawnImage | None:
    shapes = detect_shapes(pixels).shapes
    if not shapes:
        return None
    label = Item(shapes[0].colour, shapes[0].shape).label if len(shapes) == 1 else SEVERAL
    # as the preset's own preprocessing makes it smaller
    image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return DrawnImage(image, label, min(shape.radius for shape in shapes))
