"""How the image model's own mistakes are found, and what it learns from them."""

from dataclasses import replace
from pathlib import Path

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
from training.verdict import compare

BUNDLED = Path(get_preset("flux_shapes").handle)
SAID = single("red", "circle", "large", "center", "white")
SENTENCES = ("a large red circle in the middle on white", "a small blue star at the top on black")


class Aim(nn.Module):
    """Goes straight to one image [P, 64] from everywhere."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, **inputs: Tensor) -> Tensor:
        velocity: Tensor = (inputs["image"] - self.image) / inputs["timesteps"][:, None, None]
        return velocity


@pytest.fixture
def pipeline() -> TextToImage:
    return TextToImage.from_preset(BUNDLED)


@pytest.fixture
def painted() -> Painted:
    """Six images in two steps, of which the last two are wrong."""
    generator = torch.Generator().manual_seed(1)
    return Painted(
        states=torch.randn(6, 2, 64, 64, generator=generator).half(),
        sigmas=torch.tensor([0.6, 0.0]),
        text=torch.randn(6, 5, 128, generator=generator).half(),
        pooled=torch.randn(6, 128, generator=generator).half(),
        right=torch.arange(4),
        wrong=torch.tensor([4, 5]),
        truth=torch.ones(2, 64, 64).half(),
    )


def paint(
    pipeline: TextToImage, monkeypatch: pytest.MonkeyPatch, drawn: list[tuple[Scene, str]]
) -> Painted:
    left = iter(drawn)
    monkeypatch.setattr(correction, "_draw", lambda *_: next(left))
    monkeypatch.setattr(correction, "NUM_PAINTED", len(drawn))
    monkeypatch.setattr(correction, "PAINT_BATCH_SIZE", len(drawn) // 2)
    autoencoder = AutoencoderKL.from_pretrained(BUNDLED / "vae", low_cpu_mem_usage=False)
    return paint_own(pipeline, autoencoder, seed=3)


def test_images_that_show_what_is_said_are_right(
    pipeline: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = [(SAID, SENTENCES[0]), (SAID, SENTENCES[1])] * 2  # the second says something else

    painted = paint(pipeline, monkeypatch, [*drawn])

    assert painted.right.tolist() == [0, 2]
    last = pipeline.decode(painted.states[:, -1].float(), 128, 128)
    assert [compare(SAID, detect_shapes(image)).is_right for image in last] == [
        True, False, True, False,
    ]  # fmt: skip


def test_a_wrong_image_has_a_true_one_beside_it(
    pipeline: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    nn.init.zeros_(pipeline.backbone.final_layer.linear.weight)  # the noise stays what it is

    painted = paint(pipeline, monkeypatch, [(SAID, SENTENCES[0])] * 3 + [(SAID, SENTENCES[1])])

    assert painted.wrong.tolist() == [0, 1, 2]  # the last is misread, not painted wrong
    for image in pipeline.decode(painted.truth.float(), 128, 128):
        assert compare(SAID, detect_shapes(image)).is_right


def test_what_went_wrong_turns_to_the_truth(painted: Painted) -> None:
    truth = Aim(painted.truth[0].float())
    assert correction_loss(truth, truth, painted, 1).item() < 1e-6
    assert correction_loss(Aim(torch.zeros(64, 64)), truth, painted, 1).item() > 0.1


def test_what_is_right_stays_as_it_was(painted: Painted) -> None:
    earlier, truth = Aim(torch.full((64, 64), 5.0)), Aim(painted.truth[0].float())
    other = correction_loss(truth, earlier, painted, 1)
    same = correction_loss(truth, truth, painted, 1)
    assert other.item() > same.item() + 1.0


def test_states_too_near_the_end_are_left_alone(painted: Painted) -> None:
    assert RIGHT_ROWS + WRONG_ROWS == 64
    seen: list[Tensor] = []

    class Recorder(Aim):
        def forward(self, **inputs: Tensor) -> Tensor:
            seen.append(inputs["timesteps"])
            return super().forward(**inputs)

    late = replace(painted, sigmas=torch.tensor([0.6, 0.2]))
    truth = painted.truth[0].float()
    correction_loss(Recorder(truth), Aim(truth), late, 1)
    assert seen[0][RIGHT_ROWS:].min().item() >= 0.35
