"""T5's encoder against transformers' own, with its weights."""

import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from tests.models.flux.conftest import randomise
from tests.models.flux.our_parts import our_t5

VOCABULARY_SIZE = 70


def random_t5(**settings: object) -> T5EncoderModel:
    sizes: dict[str, object] = {"d_model": 36, "d_kv": 7, "num_heads": 3, "d_ff": 50}
    config = T5Config(
        vocab_size=VOCABULARY_SIZE,
        num_layers=3,
        feed_forward_proj="gated-gelu",
        **sizes | settings,
    )
    t5 = T5EncoderModel(config).eval()
    randomise(t5, seed=6)
    return t5


def token_ids(num_tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, VOCABULARY_SIZE, (2, num_tokens), generator=generator)


@pytest.mark.parametrize("num_tokens", [1, 7, 300])  # far beyond the largest distance of its own
@torch.inference_mode()
def test_the_features_are_those_of_transformers(num_tokens: int) -> None:
    oracle, ids = random_t5(), token_ids(num_tokens)
    expected = oracle(input_ids=ids).last_hidden_state
    torch.testing.assert_close(our_t5(oracle)(ids), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(8, 20), (32, 60), (10, 128)])
@torch.inference_mode()
def test_distances_are_sorted_as_transformers_does(num_buckets: int, max_distance: int) -> None:
    oracle = random_t5(
        relative_attention_num_buckets=num_buckets, relative_attention_max_distance=max_distance
    )
    ids = token_ids(150)
    expected = oracle(input_ids=ids).last_hidden_state
    torch.testing.assert_close(our_t5(oracle)(ids), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_bfloat16_is_as_near_as_transformers() -> None:
    oracle, ids = random_t5(), token_ids(40)
    exact, ours = oracle(input_ids=ids).last_hidden_state, our_t5(oracle).bfloat16()(ids)
    theirs = oracle.bfloat16()(input_ids=ids).last_hidden_state
    assert (ours - exact).norm() < 1.1 * (theirs - exact).norm()


@torch.inference_mode()
def test_what_overflows_in_float16_stays_finite() -> None:
    oracle = random_t5()
    attention = oracle.encoder.block[0].layer[0].SelfAttention
    attention.v.weight.mul_(1e3)
    attention.o.weight.mul_(1e4)
    ours, ids = our_t5(oracle).half(), token_ids(5)
    expected = oracle.half()(input_ids=ids).last_hidden_state
    assert expected.isfinite().all()
    torch.testing.assert_close(ours(ids), expected, rtol=0, atol=0.02)  # float16 has 11 bits
