"""How the batches of the image model are drawn, and how it takes up an earlier preset."""

import random
from dataclasses import fields, replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from models.flux.backbone import FluxBackbone
from models.flux.latents import image_ids
from models.flux.text_encoders import TextEncoders
from models.flux.text_to_image import TextToImage
from models.presets import get_preset
from training import correction, flux_shapes, image_flow
from training.autoencoder import build_autoencoder
from training.correction import Painted, correction_loss
from training.flux_shapes import (
    Pool,
    correct_mistakes,
    load_painted,
    load_pool,
    make_autoencoder,
    make_pool,
    read,
    sample,
    start_backbone,
)
from training.image_flow import FEATURE_NOISE, distillation_loss, flow_loss
from training.text_encoders import T5_MAX_TOKENS, WIDTH, draw_sentence, encode_said

BUNDLED = Path(get_preset("flux_shapes").handle)


@pytest.fixture
def pool() -> Pool:
    rng, generator = random.Random(1), torch.Generator().manual_seed(1)
    codes = encode_said([draw_sentence(rng)[0] for _ in range(8)]).half()
    latents = torch.randn(8, 16, 4, 4, generator=generator).half()
    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    return Pool(images, latents, codes[:, None].repeat(1, T5_MAX_TOKENS, 1), codes)


@pytest.fixture(scope="module")
def encoders() -> TextEncoders:
    return TextEncoders.from_directory(BUNDLED, "cpu", None)


def test_a_step_always_has_the_same_batch(pool: Pool) -> None:
    first, again, other = (sample(pool, step) for step in (5, 5, 6))
    assert torch.equal(first.noisy, again.noisy)
    assert torch.equal(first.text, again.text)
    assert not torch.equal(first.noisy, other.noisy)


def test_noisy_images_lie_on_the_way_of_their_velocity(pool: Pool) -> None:
    batch = sample(pool, 1)
    clean = batch.noisy - batch.sigma[:, None, None] * batch.velocity
    rows = [(pool.pooled.float() - said).abs().sum(dim=1).argmin() for said in batch.pooled]
    assert clean.shape == (64, 4, 64)
    assert torch.equal(batch.text[:, 0], batch.pooled)
    torch.testing.assert_close(
        clean.square().sum(dim=(1, 2)), pool.latents[rows].float().square().sum(dim=(1, 2, 3))
    )


def test_the_text_does_not_hold_the_noise_of_the_image(pool: Pool) -> None:
    backbone = Mock(side_effect=lambda **inputs: torch.zeros_like(inputs["image"]))
    silent = replace(pool, text=torch.zeros_like(pool.text), pooled=torch.zeros_like(pool.pooled))
    batch = sample(silent, 5)

    flow_loss(backbone, batch, 5)

    clean = batch.noisy - batch.sigma[:, None, None] * batch.velocity
    of_image = (batch.velocity + clean).round(decimals=5)
    of_text = (backbone.call_args.kwargs["text"] / FEATURE_NOISE).round(decimals=5)
    assert torch.isin(of_text.flatten()[:10_000], of_image).float().mean() < 0.5


def test_training_never_draws_a_held_out_combination() -> None:
    rng = random.Random(7)
    assert not any(draw_sentence(rng)[0].is_held_out for _ in range(3000))


def test_an_earlier_preset_gives_the_weights_to_begin_with() -> None:
    fresh, taken_up = start_backbone(None).state_dict(), start_backbone(BUNDLED).state_dict()
    earlier = TextToImage.from_preset(BUNDLED)
    for name, weight in earlier.backbone.state_dict().items():
        assert torch.equal(taken_up[name], weight), name
        assert not torch.equal(fresh[name], weight), name
    assert earlier.text_encoders.max_tokens == T5_MAX_TOKENS


def test_blocks_that_an_earlier_preset_lacks_begin_without_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier = TextToImage.from_preset(BUNDLED).backbone
    config = earlier.get_config()
    config["depth_single_blocks"] = earlier.depth_single_blocks + 2
    monkeypatch.setattr(flux_shapes, "build_backbone", lambda: FluxBackbone.from_config(config))
    generator = torch.Generator().manual_seed(1)
    batch = {
        "image": torch.randn(2, 16, 64, generator=generator),
        "image_ids": image_ids(64, 64).expand(2, -1, -1),
        "text": torch.randn(2, 5, WIDTH, generator=generator),
        "text_ids": torch.zeros(2, 5, 3),
        "y": torch.randn(2, WIDTH, generator=generator),
        "timesteps": torch.tensor([0.3, 0.9]),
        "guidance": torch.tensor([1.0, 2.0]),
    }

    deeper = start_backbone(BUNDLED)

    assert len(deeper.single_blocks) == len(earlier.single_blocks) + 2
    torch.testing.assert_close(deeper(**batch), earlier(**batch))


def test_an_earlier_preset_gives_its_autoencoder_as_it_is(tmp_path: Path) -> None:
    make_autoencoder(BUNDLED, tmp_path)
    (weights,) = (tmp_path / "vae").glob("*.safetensors")
    assert weights.read_bytes() == (BUNDLED / "vae" / weights.name).read_bytes()


def test_the_features_are_those_of_the_encoders_sentence_by_sentence(
    encoders: TextEncoders,
) -> None:
    sentences = ["a red circle", "a star above a ring", "blue"] * 22  # more than one batch
    text, pooled = read(encoders, sentences)
    alone = encoders.encode([sentences[-1]])
    assert text.shape == (66, T5_MAX_TOKENS, WIDTH)
    torch.testing.assert_close(text[-1].float(), alone.text[0], atol=5e-3, rtol=0)
    torch.testing.assert_close(pooled[-1].float(), alone.pooled[0], atol=5e-3, rtol=0)


def test_a_pool_that_was_kept_is_taken_up_whole(pool: Pool, tmp_path: Path) -> None:
    names = [field.name for field in fields(Pool)]
    torch.save(tuple(getattr(pool, name) for name in names), tmp_path / "pool.pt")
    loaded = load_pool(tmp_path)
    assert all(torch.equal(getattr(loaded, name), getattr(pool, name)) for name in names)


def test_what_is_painted_before_a_round_is_kept_and_taken_up_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        (tmp_path / part).symlink_to(BUNDLED / part)
    (tmp_path / "vae_sharp").symlink_to(BUNDLED / "vae")
    for name in ("NUM_PAINTED", "PAINT_BATCH_SIZE", "NUM_STEPS"):
        monkeypatch.setattr(correction, name, 3)
    backbone = start_backbone(BUNDLED).eval()
    nn.init.zeros_(backbone.final_layer.linear.weight)  # it paints noise

    painted = load_painted(backbone, 1, tmp_path)
    monkeypatch.delattr(flux_shapes, "paint_own")
    again = load_painted(backbone, 1, tmp_path)

    assert len(painted.wrong) > 0
    names = [field.name for field in fields(Painted)]
    assert all(torch.equal(getattr(again, name), getattr(painted, name)) for name in names)


def small_painted(num_wrong: int) -> Painted:
    """Four images of 32×32 pixels in one step."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 1, 4, 64, generator=generator).half()
    text = torch.randn(4, T5_MAX_TOKENS, WIDTH, generator=generator).half()
    pooled = torch.randn(4, WIDTH, generator=generator).half()
    return Painted(
        right=images[num_wrong:, -1],
        right_text=text[num_wrong:],
        right_pooled=pooled[num_wrong:],
        wrong=images[:num_wrong],
        wrong_text=text[:num_wrong],
        wrong_pooled=pooled[:num_wrong],
        sigmas=torch.tensor([0.5]),
        truth=torch.randn(num_wrong, 4, 64, generator=generator).half(),
    )


@pytest.mark.parametrize("num_wrong", [1, 0, 4])
def test_a_round_of_correction_needs_right_and_wrong_images(
    num_wrong: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_flow, "SIDE", 32)
    monkeypatch.setattr(flux_shapes, "CORRECTION_STEPS", (5, 1))
    monkeypatch.setattr(flux_shapes, "load_painted", lambda *_: small_painted(num_wrong))
    backbone, before = start_backbone(BUNDLED), start_backbone(BUNDLED)

    correct_mistakes(backbone, 1, tmp_path)

    is_same = torch.equal(backbone.img_in.weight, before.img_in.weight)
    assert is_same == (num_wrong != 1)


def test_a_round_of_correction_goes_over_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(student: nn.Module, earlier: nn.Module, painted: Painted, step: int) -> Tensor:
        seen.append((len(painted.right), len(painted.wrong)))
        return correction_loss(student, earlier, painted, step)

    monkeypatch.setattr(image_flow, "SIDE", 32)
    monkeypatch.setattr(flux_shapes, "CORRECTION_STEPS", (5, 5, 1))
    monkeypatch.setattr(
        flux_shapes, "load_painted", lambda _, number, __: small_painted(3 - number)
    )
    monkeypatch.setattr(flux_shapes, "correction_loss", watched)
    correct_mistakes(start_backbone(BUNDLED), 2, tmp_path)
    assert seen == [(3, 1 + 3 + 2)]


def test_a_pool_fits_together(monkeypatch: pytest.MonkeyPatch, encoders: TextEncoders) -> None:
    monkeypatch.setattr(flux_shapes, "NUM_IMAGES", 3)
    made = make_pool(build_autoencoder(), encoders)
    assert made.images.shape == (3, 3, 128, 128)
    assert made.latents.shape == (3, 16, 16, 16)
    assert made.text.shape == (3, T5_MAX_TOKENS, WIDTH)
    assert made.pooled.shape == (3, WIDTH)


def test_distillation_asks_for_nothing_but_what_guidance_adds(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_flow, "SIDE", 32)
    backbone = start_backbone(BUNDLED).eval()
    batch = sample(pool, 1)
    plain = replace(batch, guidance=torch.ones_like(batch.guidance))
    guided = replace(batch, guidance=torch.full_like(batch.guidance, 3.0))
    assert distillation_loss(backbone, backbone, plain, 1).item() < 1e-9
    assert distillation_loss(backbone, backbone, guided, 1).item() > 1e-4
