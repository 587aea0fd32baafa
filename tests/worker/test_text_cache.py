"""Which text features are kept."""

import torch

from models.flux.text_encoders import TextFeatures
from worker.text_cache import TextCache

PROMPT_BYTES = 4 * (6 * 8 + 8)


def features(number: float) -> TextFeatures:
    return TextFeatures(torch.full((1, 6, 8), number), torch.full((1, 8), number), (6,), (False,))


def test_features_that_are_kept_are_found_again() -> None:
    cache = TextCache()
    cache.keep("a", features(1.0))
    cache.keep("b", features(2.0))
    found = cache.find("a")
    assert found is not None
    assert torch.equal(found.text, features(1.0).text)
    assert torch.equal(found.pooled, features(1.0).pooled)
    assert found.num_tokens == (6,)
    assert cache.find("c") is None


def test_what_is_kept_holds_no_more_of_a_batch_than_its_own_row() -> None:
    cache, batch = TextCache(), torch.zeros(8, 6, 8)
    row = TextFeatures(batch[3:4], torch.zeros(1, 8), (6,), (False,))
    cache.keep("a", row)
    found = cache.find("a")
    assert found is not None
    assert found.text.untyped_storage().nbytes() == batch.nbytes // 8


def test_the_prompt_that_was_used_longest_ago_goes_first() -> None:
    cache = TextCache(max_bytes=2 * PROMPT_BYTES)
    cache.keep("a", features(1.0))
    cache.keep("b", features(2.0))
    cache.find("a")
    cache.keep("c", features(3.0))
    assert [cache.find(key) is not None for key in ("a", "b", "c")] == [True, False, True]


def test_a_prompt_that_two_threads_encoded_is_kept_once() -> None:
    cache = TextCache(max_bytes=2 * PROMPT_BYTES)
    cache.keep("a", features(1.0))
    cache.keep("a", features(1.0))
    cache.keep("b", features(2.0))
    assert all(cache.find(key) is not None for key in ("a", "b"))


def test_features_that_are_too_large_are_not_kept() -> None:
    cache = TextCache(max_bytes=PROMPT_BYTES - 1)
    cache.keep("a", features(1.0))
    assert cache.find("a") is None
