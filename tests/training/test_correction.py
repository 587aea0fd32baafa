"""How the image model's own mistakes are found, and what it learns from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from models.flux.text_to_image import TextToImage
from models.presets import get_preset
from training import correction
from training.correction import RIGHT_ROWS, WRONG_ROWS, Painted, correction_loss, paint_own
from training.geometry import detect_shapes
from training.shapes_world import Scene, single
from training.text_encoders import WIDTH
from training.verdict import compare

FAR = 10.0  # between the texts of two rows, which are disturbed a little
BUNDLED = Path(get_preset("flux_shapes").handle)
SAID = single("red", "circle", "large", "center", "white")
SENTENCES = ("a large red circle in the middle on white", "a small blue star at the top on black")


class Aim(nn.Module):
    """Goes straight to an image of its own for each row, whose number its text holds."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images  # [N, S, 64]
        self.sigmas = torch.empty(0)  # those that it was asked for last

    def forward(self, **inputs: Tensor) -> Tensor:
        self.sigmas = inputs["timesteps"]
        rows = (inputs["text"].mean(dim=(1, 2)) / FAR).round().long()
        velocity: Tensor = (inputs["image"] - self.images[rows]) / self.sigmas[:, None, None]
        return velocity


@pytest.fixture
def pipeline() -> TextToImage:
    return TextToImage.from_preset(BUNDLED)


@pytest.fixture
def painted() -> Painted:
    """Four right images of four patches, and two wrong ones in two steps."""
    generator = torch.Generator().manual_seed(1)
    text = (FAR * torch.arange(6.0))[:, None, None].expand(6, 5, WIDTH).half()
    return Painted(
        right=torch.randn(4, 4, 64, generator=generator).half(),
        right_text=text[:4],
        right_pooled=torch.randn(4, WIDTH, generator=generator).half(),
        wrong=torch.randn(2, 2, 4, 64, generator=generator).half(),
        wrong_text=text[4:],
        wrong_pooled=torch.randn(2, WIDTH, generator=generator).half(),
        sigmas=torch.tensor([0.6, 0.0]),
        truth=torch.randn(2, 4, 64, generator=generator).half(),
    )


@pytest.fixture
def goals(painted: Painted) -> Tensor:
    """Where each row should go: a wrong one to its truth."""
    return torch.cat((painted.right, painted.truth)).float()


def paint(
    pipeline: TextToImage, monkeypatch: pytest.MonkeyPatch, drawn: list[tuple[Scene, str]]
) -> Painted:
    left = iter(drawn)
    monkeypatch.setattr(correction, "draw_sentence", lambda *_: next(left))
    monkeypatch.setattr(correction, "NUM_PAINTED", len(drawn))
    monkeypatch.setattr(correction, "PAINT_BATCH_SIZE", len(drawn) // 2)
    autoencoder = AutoencoderKL.from_pretrained(BUNDLED / "vae", low_cpu_mem_usage=False)
    return paint_own(pipeline, autoencoder, number=3)


def test_images_that_show_what_is_said_are_right(
    pipeline: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = [(SAID, SENTENCES[0]), (SAID, SENTENCES[1])] * 2  # the second says something else

    painted = paint(pipeline, monkeypatch, [*drawn])

    features = pipeline.encode([SENTENCES[0]] * 2)
    assert torch.equal(painted.right_text, features.text.half())
    assert torch.equal(painted.right_pooled, features.pooled.half())
    for image in pipeline.decode(painted.right.float(), 128, 128):
        assert compare(SAID, detect_shapes(image)).is_right
    assert len(painted.wrong) == len(painted.truth) == 0


def test_a_wrong_image_has_a_true_one_beside_it(
    pipeline: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    nn.init.zeros_(pipeline.backbone.final_layer.linear.weight)  # the noise stays what it is

    painted = paint(pipeline, monkeypatch, [(SAID, SENTENCES[0])] * 3 + [(SAID, SENTENCES[1])])

    features = pipeline.encode([SENTENCES[0]] * 3)  # the fourth is misread, not painted wrong
    assert torch.equal(painted.wrong_text, features.text.half())
    assert len(painted.right) == 0
    for image in pipeline.decode(painted.truth.float(), 128, 128):
        assert compare(SAID, detect_shapes(image)).is_right


def test_of_many_renderings_the_nearest_is_aimed_at(
    pipeline: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    nn.init.zeros_(pipeline.backbone.final_layer.linear.weight)
    few = paint(pipeline, monkeypatch, [(SAID, SENTENCES[0])] * 2)
    monkeypatch.setattr(correction, "NUM_RENDERINGS", 1)
    one = paint(pipeline, monkeypatch, [(SAID, SENTENCES[0])] * 2)

    images = pipeline.decode(few.wrong[:, -1].float(), 128, 128)
    errors = [
        np.abs(pipeline.decode(each.truth.float(), 128, 128).astype(int) - images).mean(
            axis=(1, 2, 3)
        )
        for each in (few, one)
    ]
    assert (errors[0] <= errors[1] + 0.05).all()
    assert not torch.equal(few.truth, one.truth)


def test_wrong_images_turn_to_the_truth_and_right_ones_stay(
    painted: Painted, goals: Tensor
) -> None:
    earlier = Aim(torch.cat((painted.right, painted.wrong[:, -1])).float())
    assert correction_loss(Aim(goals), earlier, painted, 1).item() < 1e-6
    assert correction_loss(earlier, earlier, painted, 1).item() > 0.1  # goes on being wrong
    moved = goals.clone()
    moved[:4] += 1.0
    assert correction_loss(Aim(moved), earlier, painted, 1).item() > 0.1


def test_the_mistakes_of_an_earlier_round_are_learned_from_too(
    painted: Painted, goals: Tensor
) -> None:
    new = replace(
        painted,
        wrong=painted.wrong[:1],
        wrong_text=painted.wrong_text[:1],
        wrong_pooled=painted.wrong_pooled[:1],
        truth=painted.truth[:1],
    )
    half_right = goals.clone()
    half_right[5] += 1.0
    assert correction_loss(Aim(half_right), Aim(goals), new, 1).item() < 1e-6
    both = new.with_mistakes_of(replace(painted, right=painted.right[:0]))
    assert correction_loss(Aim(half_right), Aim(goals), both, 1).item() > 0.1
    assert correction_loss(Aim(goals), Aim(goals), both, 1).item() < 1e-6


def test_states_too_near_the_end_are_left_alone(painted: Painted, goals: Tensor) -> None:
    late = replace(painted, sigmas=torch.tensor([0.6, 0.2]))
    student = Aim(goals)
    correction_loss(student, Aim(goals), late, 1)
    assert len(student.sigmas) == RIGHT_ROWS + WRONG_ROWS
    assert student.sigmas[RIGHT_ROWS:].min().item() >= 0.35
