"""Small pictures of rows on their way, beside the pictures that they become."""

import numpy as np
import pytest
import torch
from einops import reduce

from models.flux.previews import PreviewMap
from models.flux.text_to_image import TextToImage
from tests.models.flux.loops import Pipelines

COLOURFUL = "a yellow star above a green ring on a purple background"
NUM_STEPS = 18
LIKENESS = 0.8  # correlation over pixels and channels; 0.9 and more was seen


@pytest.fixture(scope="module")
def shapes() -> TextToImage:
    return TextToImage.from_preset("flux_shapes")


def test_after_a_third_of_the_steps_a_preview_is_like_the_picture(shapes: TextToImage) -> None:
    (row,) = shapes.begin(shapes.encode([COLOURFUL]), [3], 144, 128, NUM_STEPS, 2.0)
    while row.step < NUM_STEPS // 3:
        shapes.step([row])
    preview = shapes.preview(row)
    while not row.is_done:
        shapes.step([row])

    picture = shapes.decode(row.patches[None], 144, 128)[0]
    assert preview.shape == (16, 18, 3)
    assert preview.dtype == np.uint8
    small = reduce(picture.astype(float), "(h ph) (w pw) C -> h w C", "mean", ph=8, pw=8)
    assert np.corrcoef(preview.ravel(), small.ravel())[0, 1] > LIKENESS


def test_a_preview_changes_nothing(shapes: TextToImage) -> None:
    text = shapes.encode([COLOURFUL])
    seen, unseen = shapes.begin(text, [3, 3], 64, 64, 3, 2.0)
    for _ in range(3):
        shapes.step([seen])
        shapes.step([unseen])
        shapes.preview(seen)
    assert torch.equal(seen.patches, unseen.patches)


def test_the_colours_of_previews_are_found_alike_each_time(shapes: TextToImage) -> None:
    first, second = (PreviewMap.fit(shapes.autoencoder) for _ in range(2))
    torch.testing.assert_close(first.weight, second.weight, atol=1e-5, rtol=0)
    torch.testing.assert_close(first.bias, second.bias, atol=1e-5, rtol=0)


def test_before_its_first_step_a_row_has_no_preview(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    (row,) = pipeline.begin(pipeline.encode([COLOURFUL]), [1], 64, 64, 2)
    with pytest.raises(ValueError, match="the row is at step 0"):
        pipeline.preview(row)
