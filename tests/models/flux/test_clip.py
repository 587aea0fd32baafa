"""CLIP's text encoder against transformers' own, with its weights."""

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from tests.models.flux.conftest import randomise
from tests.models.flux.our_parts import our_clip

VOCABULARY_SIZE, NUM_POSITIONS = 91, 13
LAST = VOCABULARY_SIZE - 1


def random_clip(**settings: object) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=36,
        intermediate_size=50,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=NUM_POSITIONS,
        bos_token_id=0,
        **settings,
    )
    clip = CLIPTextModel(config).eval()
    randomise(clip, seed=3)
    return clip


def texts(*lengths: int, end: int = LAST) -> Tensor:
    """Rows that end after so many tokens, and are padded with the end token."""
    ids = torch.randint(1, LAST - 1, (len(lengths), 11), generator=torch.Generator().manual_seed(1))
    for row, length in zip(ids, lengths, strict=True):
        row[length - 1 :] = end
    return ids


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.inference_mode()
def test_the_pooled_text_is_that_of_transformers(activation: str) -> None:
    oracle, ids = random_clip(hidden_act=activation, eos_token_id=LAST), texts(3, 8, 11)
    expected = oracle(input_ids=ids).pooler_output
    torch.testing.assert_close(our_clip(oracle)(ids), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eos_token_id", [2, LAST - 1])
@torch.inference_mode()
def test_a_text_ends_where_its_configuration_says_or_at_the_highest_token(
    eos_token_id: int,
) -> None:
    oracle = random_clip(eos_token_id=eos_token_id)
    ids = texts(4, 9, end=LAST if eos_token_id == 2 else eos_token_id)
    expected = oracle(input_ids=ids).pooler_output
    torch.testing.assert_close(our_clip(oracle)(ids), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_what_stands_behind_the_end_changes_nothing() -> None:
    clip, ids = our_clip(random_clip(eos_token_id=LAST)), texts(5)
    changed = ids.clone()
    changed[:, 5:] = 7
    torch.testing.assert_close(clip(changed), clip(ids), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_bfloat16_is_as_near_as_transformers() -> None:
    oracle, ids = random_clip(eos_token_id=LAST), texts(3, 8, 11)
    exact, ours = oracle(input_ids=ids).pooler_output, our_clip(oracle).bfloat16()(ids)
    theirs = oracle.bfloat16()(input_ids=ids).pooler_output
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm()
