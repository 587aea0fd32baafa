"""Which text features are kept."""

import torch

from models.flux.text_encoders import TextFeatures
from worker.text_cache import TextCache

PROMPT_BYTES = 4 * (6 * 8 + 8)


class Encoder:
    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, cache: TextCache, prompt: str) -> TextFeatures:
        def encode() -> TextFeatures:
            self.prompts.append(prompt)
            number = float(len(self.prompts))
            return TextFeatures(
                torch.full((1, 6, 8), number), torch.full((1, 8), number), (6,), (False,)
            )

        return cache.get(prompt, encode)


def test_a_repeated_prompt_is_not_encoded_again() -> None:
    cache, encode = TextCache(), Encoder()
    first, other, again = (encode(cache, prompt) for prompt in ("a", "b", "a"))
    assert encode.prompts == ["a", "b"]
    assert torch.equal(first.text, again.text)
    assert torch.equal(first.pooled, again.pooled)
    assert not torch.equal(first.text, other.text)
    assert again.num_tokens == (6,)


def test_the_prompt_that_was_used_longest_ago_goes_first() -> None:
    cache, encode = TextCache(max_bytes=2 * PROMPT_BYTES), Encoder()
    for prompt in ("a", "b", "a", "c", "a", "b"):
        encode(cache, prompt)
    assert encode.prompts == ["a", "b", "c", "b"]


def test_features_that_are_too_large_to_keep_are_used_all_the_same() -> None:
    cache, encode = TextCache(max_bytes=PROMPT_BYTES - 1), Encoder()
    assert encode(cache, "a").text.shape == (1, 6, 8)
    encode(cache, "a")
    assert encode.prompts == ["a", "a"]
