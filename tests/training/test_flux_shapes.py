"""How the batches of the image model are drawn, and how it takes up an earlier preset."""

import random
from pathlib import Path

import pytest
import torch

from models.flux.text_to_image import TextToImage
from models.presets import get_preset
from training.flux_shapes import Pool, sample, start_backbone
from training.text_encoders import MAX_TOKENS, draw_sentence, encode_said

BUNDLED = Path(get_preset("flux_shapes").handle)


@pytest.fixture
def pool() -> Pool:
    rng, generator = random.Random(1), torch.Generator().manual_seed(1)
    drawn = [draw_sentence(rng) for _ in range(8)]
    latents = torch.randn(8, 16, 4, 4, generator=generator).half()
    codes = encode_said([said for said, _ in drawn])
    return Pool(latents, codes, [sentence for _, sentence in drawn])


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


def test_an_earlier_preset_gives_all_weights_but_those_that_read_text() -> None:
    fresh, taken_up = start_backbone(None).state_dict(), start_backbone(BUNDLED).state_dict()
    earlier = TextToImage.from_preset(BUNDLED).backbone.state_dict()
    for name, weight in taken_up.items():
        reads_text = name.startswith(("txt_in.", "vector_in."))
        assert torch.equal(weight, (fresh if reads_text else earlier)[name]), name
    assert TextToImage.from_preset(BUNDLED).text_encoders.max_tokens == MAX_TOKENS
