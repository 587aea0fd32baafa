"""How the batches of the image model are drawn, and how it takes up an earlier preset."""

import random
from pathlib import Path

import pytest
import torch

from models.flux.text_to_image import TextToImage
from models.presets import get_preset
from training import flux_shapes
from training.autoencoder import build_autoencoder
from training.flux_shapes import (
    Pool,
    load_pool,
    make_autoencoder,
    make_pool,
    sample,
    start_backbone,
)
from training.text_encoders import MAX_TOKENS, WIDTH, draw_sentence, encode_said

BUNDLED = Path(get_preset("flux_shapes").handle)


@pytest.fixture
def pool() -> Pool:
    rng, generator = random.Random(1), torch.Generator().manual_seed(1)
    drawn = [draw_sentence(rng) for _ in range(8)]
    latents = torch.randn(8, 16, 4, 4, generator=generator).half()
    codes = encode_said([said for said, _ in drawn])
    pictures = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    return Pool(pictures, latents, codes, [sentence for _, sentence in drawn])


def test_a_step_always_has_the_same_batch(pool: Pool) -> None:
    first, again, other = (sample(pool, step) for step in (5, 5, 6))
    assert torch.equal(first.noisy, again.noisy)
    assert first.sentences == again.sentences
    assert not torch.equal(first.noisy, other.noisy)


def test_noisy_pictures_lie_on_the_way_of_their_velocity(pool: Pool) -> None:
    batch = sample(pool, 1)
    clean = batch.noisy - batch.sigma[:, None, None] * batch.velocity
    rows = [pool.sentences.index(sentence) for sentence in batch.sentences]
    assert clean.shape == (64, 4, 64)
    torch.testing.assert_close(
        clean.square().sum(dim=(1, 2)), pool.latents[rows].float().square().sum(dim=(1, 2, 3))
    )


def test_training_never_draws_a_held_out_combination() -> None:
    rng = random.Random(7)
    assert not any(draw_sentence(rng)[0].is_held_out for _ in range(3000))


def test_an_earlier_preset_gives_the_weights_to_begin_with() -> None:
    fresh, taken_up = start_backbone(None).state_dict(), start_backbone(BUNDLED).state_dict()
    earlier = TextToImage.from_preset(BUNDLED)
    for name, weight in earlier.backbone.state_dict().items():
        assert torch.equal(taken_up[name], weight), name
        assert not torch.equal(fresh[name], weight), name
    assert earlier.text_encoders.max_tokens == MAX_TOKENS


def test_an_earlier_preset_gives_its_autoencoder_as_it_is(tmp_path: Path) -> None:
    make_autoencoder(BUNDLED, tmp_path)
    (weights,) = (tmp_path / "vae").glob("*.safetensors")
    assert weights.read_bytes() == (BUNDLED / "vae" / weights.name).read_bytes()


def test_a_pool_that_was_kept_is_taken_up_whole(pool: Pool, tmp_path: Path) -> None:
    kept = (pool.pictures, pool.latents, pool.codes, pool.sentences)
    torch.save(kept, tmp_path / "pool.pt")
    loaded = load_pool(tmp_path)
    assert torch.equal(loaded.pictures, pool.pictures)
    assert torch.equal(loaded.latents, pool.latents)
    assert torch.equal(loaded.codes, pool.codes)
    assert loaded.sentences == pool.sentences


def test_a_pool_fits_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_shapes, "NUM_PICTURES", 3)
    made = make_pool(build_autoencoder())
    assert made.pictures.shape == (3, 3, 128, 128)
    assert made.latents.shape == (3, 16, 16, 16)
    assert made.codes.shape == (3, WIDTH)
    assert len(made.sentences) == 3
