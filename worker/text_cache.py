"""The text features of the last prompts, in host memory: T5 need not come back for one of them.

With T5-XXL streamed to the device a prompt costs a second, and the same prompt is painted again and
again with other seeds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

from worker.metrics import WorkerMetrics

if TYPE_CHECKING:  # other queues' workers do without
    from models.flux.text_encoders import TextFeatures


class TextCache:
    """Features by a key that holds all that they follow from: model, adapters, prompt, length.

    Any thread may call it.
    """

    def __init__(self, max_bytes: int, metrics: WorkerMetrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._kept: OrderedDict[Hashable, TextFeatures] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def find(self, key: Hashable, model: str) -> TextFeatures | None:
        """The features of this key, in host memory; counted as the model's."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            found = self._kept.get(key)
        result = "miss" if found is None else "hit"
        self._metrics.prompt_cache_requests.labels(model, result).inc()
        return found

    def keep(self, key: Hashable, features: TextFeatures) -> None:
        """Keep a copy of the features of one prompt that was not found, if they fit at all."""
        if _bytes_of(features) > self._max_bytes:
            return
        text, pooled = (each.to("cpu", copy=True) for each in (features.text, features.pooled))
        kept = replace(features, text=text, pooled=pooled)
        with self._lock:
            if key in self._kept:  # another thread has encoded the prompt meanwhile
                return
            self._kept[key] = kept
            self._num_bytes += _bytes_of(kept)
            while self._num_bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._num_bytes -= _bytes_of(oldest)
                self._metrics.prompt_cache_evictions.inc()
            self._metrics.prompt_cache_bytes.set(self._num_bytes)


def _bytes_of(features: TextFeatures) -> int:
    return features.text.nbytes + features.pooled.nbytes
