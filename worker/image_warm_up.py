"""The first use of a text-to-image model: each part once, and what its steps cost, measured.

Knows nothing about jobs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from worker import png
from worker.contract.model_cards import ImageLimits, ModelCard
from worker.failures import is_out_of_memory
from worker.image_run import ImagePipeline
from worker.side_thread import synchronize
from worker.step_costs import StepCosts

if TYPE_CHECKING:  # transformers takes seconds to import, and other queues' workers do without
    from models.flux.rows import PaintRow
    from models.flux.text_encoders import TextFeatures

_MEASURING_S = 0.8  # of the start; after it nothing further is measured
_NUM_TIMED_STEPS = 2
_LONG_STEP_S = 0.2  # from here on one step is enough to measure

_Size: TypeAlias = tuple[int, int]  # width and height, pixels


def warm_up(pipeline: ImagePipeline, card: ModelCard) -> StepCosts:
    """Paint an image that nobody sees, and measure the default size and the usual ones."""
    limits = card.image_limits
    assert limits is not None, f"this is a bug: {card.name} has no limits"
    text = pipeline.encode(["warm up"], limits.max_sequence_length, loras={})
    trial = _Trial(pipeline, limits, card.device, text)
    trial.paint()
    costs = StepCosts(limits.max_tokens_at_once)
    give_up_at = time.perf_counter() + _MEASURING_S
    for size in _sizes(limits):
        if time.perf_counter() > give_up_at:
            break
        num_patches = size[0] * size[1] // limits.side_multiple**2
        row_tokens = limits.max_sequence_length + num_patches
        costs.learn(row_tokens, partial(trial.step_s, size, give_up_at))
    return costs


@dataclass(frozen=True, slots=True)
class _Trial:
    """A pipeline, and all that a job would say."""

    pipeline: ImagePipeline
    limits: ImageLimits
    device: str
    text: TextFeatures

    def paint(self) -> None:
        size = self.limits.default_width, self.limits.default_height
        [row] = self._begin(size, num_rows=1)
        self.pipeline.step([row])
        self.pipeline.preview(row)
        [pixels] = self.pipeline.decode(row.patches.cpu()[None], *size)
        png.encode(pixels, {})

    def step_s(self, size: _Size, give_up_at: float, num_rows: int) -> float:
        """Measure a step; inf where it does not fit, or the time for more than one row is over."""
        if num_rows > 1 and time.perf_counter() > give_up_at:
            return math.inf
        try:
            return self._shortest_step_s(self._begin(size, num_rows))
        except Exception as error:
            if num_rows == 1 or not is_out_of_memory(error):
                raise
            return math.inf

    def _shortest_step_s(self, rows: Sequence[PaintRow]) -> float:
        """Of two, as the first has memory to find."""
        # of a processor that others use as well, only what this thread had of it
        clock = time.thread_time if self.device == "cpu" else time.perf_counter
        shortest_s = math.inf
        for _ in range(_NUM_TIMED_STEPS):
            before = clock()
            self.pipeline.step(rows)
            synchronize(self.device)
            shortest_s = min(shortest_s, clock() - before)
            if shortest_s > _LONG_STEP_S:
                break
        return shortest_s

    def _begin(self, size: _Size, num_rows: int) -> list[PaintRow]:
        limits, seeds = self.limits, range(num_rows)
        guidance_scale = limits.default_guidance_scale if self.pipeline.has_guidance else None
        return self.pipeline.begin(
            self.text, seeds, *size, _NUM_TIMED_STEPS, guidance_scale, loras={}
        )


def _sizes(limits: ImageLimits) -> Iterator[_Size]:
    """The default, and the squares of the smallest side, of twice that, and so on."""
    default = limits.default_width, limits.default_height
    yield default
    side = limits.min_side
    while side <= limits.max_side and side**2 <= limits.max_pixels:
        if side**2 != default[0] * default[1]:
            yield side, side
        side *= 2
