"""Which text features are kept, and what is counted of it."""

import torch

from models.flux.text_encoders import TextFeatures
from worker.contract.jobs import Task
from worker.metrics import WorkerMetrics
from worker.text_cache import TextCache

MODEL = "flux_shapes"
PROMPT_BYTES = 4 * (6 * 8 + 8)


def features(number: float) -> TextFeatures:
    return TextFeatures(torch.full((1, 6, 8), number), torch.full((1, 8), number), (6,), (False,))


def cache_of(num_prompts: int) -> TextCache:
    return TextCache(num_prompts * PROMPT_BYTES, WorkerMetrics(Task.IMAGES))


def are_kept(cache: TextCache, *keys: str) -> list[bool]:
    return [cache.find(key, MODEL) is not None for key in keys]


def test_features_that_are_kept_are_found_again() -> None:
    cache = cache_of(2)
    cache.keep("a", features(1.0))
    cache.keep("b", features(2.0))
    found = cache.find("a", MODEL)
    assert found is not None
    assert torch.equal(found.text, features(1.0).text)
    assert torch.equal(found.pooled, features(1.0).pooled)
    assert found.num_tokens == (6,)
    assert cache.find("c", MODEL) is None


def test_what_is_kept_holds_no_more_of_a_batch_than_its_own_row() -> None:
    cache, batch = cache_of(1), torch.zeros(8, 6, 8)
    row = TextFeatures(batch[3:4], torch.zeros(1, 8), (6,), (False,))
    cache.keep("a", row)
    found = cache.find("a", MODEL)
    assert found is not None
    assert found.text.untyped_storage().nbytes() == batch.nbytes // 8


def test_the_prompt_that_was_used_longest_ago_goes_first() -> None:
    cache = cache_of(2)
    cache.keep("a", features(1.0))
    cache.keep("b", features(2.0))
    cache.find("a", MODEL)
    cache.keep("c", features(3.0))
    assert are_kept(cache, "a", "b", "c") == [True, False, True]


def test_a_prompt_that_two_threads_encoded_is_kept_once() -> None:
    cache = cache_of(2)
    cache.keep("a", features(1.0))
    cache.keep("a", features(1.0))
    cache.keep("b", features(2.0))
    assert are_kept(cache, "a", "b") == [True, True]


def test_features_that_are_too_large_are_not_kept_and_push_nothing_out() -> None:
    cache = cache_of(1)
    cache.keep("a", features(1.0))
    cache.keep("b", TextFeatures(torch.zeros(1, 7, 8), torch.zeros(1, 8), (7,), (False,)))
    assert are_kept(cache, "a", "b") == [True, False]


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = cache_of(0)
    cache.keep("a", features(1.0))
    assert are_kept(cache, "a") == [False]


def test_requests_bytes_and_evictions_are_counted() -> None:
    metrics = WorkerMetrics(Task.IMAGES)
    cache = TextCache(PROMPT_BYTES, metrics)
    for key in ("a", "b"):
        cache.find(key, MODEL)
        cache.keep(key, features(1.0))
    cache.find("b", MODEL)
    value = metrics.registry.get_sample_value
    requests = "triptych_prompt_cache_requests_total"
    assert value(requests, {"model": MODEL, "result": "miss"}) == 2
    assert value(requests, {"model": MODEL, "result": "hit"}) == 1
    assert value("triptych_prompt_cache_bytes") == PROMPT_BYTES
    assert value("triptych_prompt_cache_evictions_total") == 1
